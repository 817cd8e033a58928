# What cmake --install puts where: a component for each program, which becomes a package of its own.
include(GNUInstallDirs)
set(CMAKE_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
    OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)

foreach(program underlay-nbd underlay-thin underlay-img)
  install(TARGETS ${program} COMPONENT ${program})
endforeach()

# ---- Files that say where others lie, which is known when they are installed: SOURCE without
# ".in" goes to FOLDER beneath the prefix, or beneath the system's folder for configuration ("etc").
function(install_configured component folder)
  foreach(source IN LISTS ARGN)
    install(CODE "
      set(source \"${CMAKE_SOURCE_DIR}/${source}\")
      set(staging \"${CMAKE_BINARY_DIR}/configured\")
      set(folder \"${folder}\")
      set(version \"${PROJECT_VERSION}\")
      include(\"${CMAKE_SOURCE_DIR}/tools/packages/install_configured.cmake\")"
      COMPONENT ${component})
  endforeach()
endfunction()

install_configured(underlay-nbd lib/systemd/system
  server/systemd/underlay-nbd.service.in
  server/systemd/underlay-nbd@.service.in
  server/systemd/underlay-nbd.socket.in)
install_configured(underlay-nbd lib/sysusers.d server/systemd/sysusers.d/underlay.conf.in)
install_configured(underlay-nbd lib/tmpfiles.d server/systemd/tmpfiles.d/underlay.conf.in)
install_configured(underlay-nbd etc/underlay server/systemd/underlay-nbd.conf.in)
install_configured(underlay-thin lib/systemd/system
  tools/thin/underlay-thin-activate.service.in
  tools/thin/underlay-thin-watch.service.in)

install(FILES tools/monitoring/alerts.yml tools/monitoring/grafana-dashboard.json
        DESTINATION ${CMAKE_INSTALL_DATADIR}/underlay-nbd COMPONENT underlay-nbd)

# ---- Manual pages: each stands beside its program, as PROGRAM:SECTION.
find_program(POD2MAN pod2man REQUIRED)
find_program(GZIP gzip REQUIRED)
foreach(page server/underlay-nbd:8 tools/thin/underlay-thin:8 tools/img/underlay-img:1)
  string(REPLACE ":" ";" page ${page})
  list(POP_BACK page section)
  cmake_path(GET page FILENAME program)
  set(manual ${CMAKE_BINARY_DIR}/man/${program}.${section})
  string(TOUPPER ${program} title)
  add_custom_command(OUTPUT ${manual} ${manual}.gz
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/man
    COMMAND ${POD2MAN} --utf8 --errors=die --name=${title} --section=${section} --center=Underlay
            "--release=Underlay ${PROJECT_VERSION}" ${CMAKE_SOURCE_DIR}/${page}.pod ${manual}
    COMMAND ${GZIP} -9nfk ${manual}
    DEPENDS ${CMAKE_SOURCE_DIR}/${page}.pod VERBATIM)
  list(APPEND manuals ${manual}.gz)
  install(FILES ${manual}.gz DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section}
          COMPONENT ${program})
endforeach()
add_custom_target(manuals ALL DEPENDS ${manuals})

# ---- Completion for shells, made out of what the programs print for --help.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(completion ${CMAKE_BINARY_DIR}/completion)
file(GLOB completion_makers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tools/completion/*.py)
# Debian's zsh looks elsewhere for what packages bring.
install(CODE [[
  set(zsh_folder site-functions)
  if(CMAKE_INSTALL_PREFIX MATCHES "^/usr/?$" AND EXISTS /etc/debian_version)
    set(zsh_folder vendor-completions)
  endif()]] ALL_COMPONENTS)
foreach(program underlay-nbd underlay-thin underlay-img)
  set(files ${completion}/bash/${program} ${completion}/zsh/_${program}
            ${completion}/fish/${program}.fish)
  add_custom_command(OUTPUT ${files}
    COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_SOURCE_DIR}/tools/completion/generate.py
            $<TARGET_FILE:${program}> ${completion}
    DEPENDS ${program} ${completion_makers} VERBATIM)
  list(APPEND completions ${files})
  set(folders bash-completion/completions "zsh/\${zsh_folder}" fish/vendor_completions.d)
  foreach(file folder IN ZIP_LISTS files folders)
    install(FILES ${file} DESTINATION "${CMAKE_INSTALL_DATADIR}/${folder}" COMPONENT ${program})
  endforeach()
endforeach()
add_custom_target(completions ALL DEPENDS ${completions})
