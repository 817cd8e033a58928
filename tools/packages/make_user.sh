# The user that servers run as, and the folder of images. What is there stays as it is.
make_user() {
  if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers ${DPKG_ROOT:+--root="$DPKG_ROOT"} underlay.conf
  elif [ -z "${DPKG_ROOT:-}" ] && ! getent passwd underlay >/dev/null; then
    adduser --system --group --quiet --home /var/lib/underlay-images --no-create-home underlay
  fi
  if [ ! -d "${DPKG_ROOT:-}/var/lib/underlay-images" ]; then
    group=$(sed -n 's/^underlay:[^:]*:\([0-9]*\):.*/\1/p' "${DPKG_ROOT:-}/etc/group")
    install -d -m 0750 -g "${group:-0}" "${DPKG_ROOT:-}/var/lib/underlay-images"
  fi
}
make_user
