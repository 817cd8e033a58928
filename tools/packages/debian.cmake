# Packages for Debian: cpack -G DEB, or tools/package, which builds before.
set(CPACK_PACKAGE_NAME underlay)
set(CPACK_PACKAGE_VENDOR "The Underlay authors")
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR}/packages)
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_PREFIX /usr)
# Without it the prefix is a temporary folder while files are installed, and units would name that.
set(CPACK_SET_DESTDIR ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS ${CMAKE_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS})
set(CPACK_COMPONENTS_ALL underlay-nbd underlay-thin underlay-img)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEB_COMPONENT_INSTALL ON)

set(CPACK_DEBIAN_PACKAGE_MAINTAINER "The Underlay authors <underlay@users.noreply.github.com>")
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(package_version "${PROJECT_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE}")

# ---- What each package has for itself: "depends" are programs, and what is not linked to;
# "recommends" and "suggests" are libraries that are loaded when an image needs them.
set(underlay-nbd_summary "serves disk images read-only over NBD")
set(underlay-nbd_description "\
underlay-nbd serves qcow2, vhd, vhdx, vmdk, vdi, qcow and raw images, on
io_uring. It takes the options of qemu-nbd -r with their meaning.

Neither images nor clients are trusted: what cannot be read right is an error.")
set(underlay-nbd_depends "systemd | systemd-standalone-sysusers | adduser")
set(underlay-nbd_recommends
    "libnbd0, libcryptsetup12, libcurl3-gnutls, libssl3, libgnutls30, libmicrohttpd12")
set(underlay-nbd_suggests "libqcow1, libvhdi1, underlay-thin, underlay-img")
set(underlay-nbd_units "underlay-nbd.socket underlay-nbd.service")
# Of a template: they are not in `units`, but are stopped with those.
set(underlay-nbd_instances "'underlay-nbd@*.service'")
set(underlay-nbd_on_upgrade "'underlay-nbd*.service' reload")

set(underlay-thin_summary "writable thin volumes on read-only disk images")
set(underlay-thin_description "\
underlay-thin makes a device-mapper thin volume on an image in a tenth of a
second. What the image has uncompressed is read without leaving the kernel; the
rest is served by underlay-nbd, over the kernel's nbd.")
set(underlay-thin_depends
    "underlay-nbd (= ${package_version}), thin-provisioning-tools, dmsetup, kmod")
set(underlay-thin_recommends "libnbd0, libcryptsetup12, libssl3, libgnutls30")
set(underlay-thin_suggests "underlay-img")
set(underlay-thin_units "underlay-thin-watch.service underlay-thin-activate.service")
# Never underlay-thin-activate.service: that would take the volumes down.
set(underlay-thin_on_upgrade "underlay-thin-watch.service restart")

set(underlay-img_summary "looks into disk images and converts them, and never writes to one")
set(underlay-img_description "\
underlay-img says what is in an image (info, map, dump), whether it is whole
(check), whether the image of a stranger may be served (audit), and what its
content is (digest, compare). It takes the subcommands, options and JSON fields
of qemu-img.")
set(underlay-img_depends "")
set(underlay-img_recommends "libnbd0, libcryptsetup12, libcurl3-gnutls, libssl3, libcairo2")
set(underlay-img_suggests "libqcow1, libvhdi1, libvmdk1")
set(underlay-img_units "")

# ---- Documents that every package has.
set(documents ${CMAKE_BINARY_DIR}/package-documents)
set(changelog ${CMAKE_SOURCE_DIR}/tools/packages/changelog)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${changelog} ${CMAKE_SOURCE_DIR}/LICENSE)
file(READ ${CMAKE_SOURCE_DIR}/LICENSE license)
string(REGEX MATCH "Copyright [^\n]*" copyright_line "${license}")
string(REGEX REPLACE "^.*\nCopyright [^\n]*\n+" "" license "${license}")
string(STRIP "${license}" license)
string(REPLACE "\n\n" "\n.\n" license "${license}")
string(REPLACE "\n" "\n " license "${license}")
string(REGEX REPLACE "^Copyright \\(c\\) " "" copyright_line "${copyright_line}")
configure_file(${CMAKE_SOURCE_DIR}/tools/packages/copyright.in ${documents}/copyright @ONLY)
execute_process(COMMAND ${GZIP} -9nc ${changelog} OUTPUT_FILE ${documents}/changelog.Debian.gz
                COMMAND_ERROR_IS_FATAL ANY)

# ---- Scripts that dpkg runs: out of templates, where there are units.
set(templates ${CMAKE_SOURCE_DIR}/tools/packages)
foreach(package IN LISTS CPACK_COMPONENTS_ALL)
  install(FILES ${documents}/copyright ${documents}/changelog.Debian.gz
          DESTINATION share/doc/${package} COMPONENT ${package})
  string(TOUPPER ${package} key)
  set(CPACK_DEBIAN_${key}_PACKAGE_NAME ${package})
  set(CPACK_DEBIAN_${key}_DESCRIPTION "${${package}_summary}\n${${package}_description}")
  set(CPACK_DEBIAN_${key}_PACKAGE_DEPENDS "${${package}_depends}")
  set(CPACK_DEBIAN_${key}_PACKAGE_RECOMMENDS "${${package}_recommends}")
  set(CPACK_DEBIAN_${key}_PACKAGE_SUGGESTS "${${package}_suggests}")
  if(NOT ${package}_units)
    continue()
  endif()
  set(units "${${package}_units}")
  set(instances "${${package}_instances}")
  set(on_upgrade "${${package}_on_upgrade}")
  set(scripts ${CMAKE_BINARY_DIR}/package-scripts/${package})
  set(prepare "")
  if(package STREQUAL underlay-nbd)
    file(READ ${templates}/make_user.sh prepare)
    configure_file(${templates}/conffiles ${scripts}/conffiles COPYONLY)
    list(APPEND CPACK_DEBIAN_${key}_PACKAGE_CONTROL_EXTRA ${scripts}/conffiles)
  endif()
  foreach(script postinst prerm postrm)
    configure_file(${templates}/${script}.in ${scripts}/${script} @ONLY)
    list(APPEND CPACK_DEBIAN_${key}_PACKAGE_CONTROL_EXTRA ${scripts}/${script})
  endforeach()
endforeach()

include(CPack)
