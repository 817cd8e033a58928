# Runs at installation: see install_configured() in installation.cmake.
set(CMAKE_INSTALL_FULL_BINDIR ${CMAKE_INSTALL_PREFIX}/bin)
# As GNUInstallDirs: what is installed in /usr is configured in /etc.
set(CMAKE_INSTALL_FULL_SYSCONFDIR ${CMAKE_INSTALL_PREFIX}/etc)
if(CMAKE_INSTALL_PREFIX MATCHES "^/usr/?$")
  set(CMAKE_INSTALL_FULL_SYSCONFDIR /etc)
endif()
string(REGEX REPLACE "^etc/" "${CMAKE_INSTALL_FULL_SYSCONFDIR}/" destination ${folder})
if(destination STREQUAL folder)
  set(destination ${CMAKE_INSTALL_PREFIX}/${folder})
endif()
cmake_path(GET source STEM LAST_ONLY name)
configure_file(${source} ${staging}/${folder}/${name} @ONLY)
file(INSTALL ${staging}/${folder}/${name} DESTINATION ${destination})
