# Record of what was built and what was not, with reasons: printed at the end of the configuration, and installed as
# runtime/lib/native.json, from which Python tells a user why a library is missing.

# avsbg_record_built(NAME FILE [KEY VALUE]...): the library NAME (FILE in runtime/lib) will be built.
function(avsbg_record_built name file)
  set(fields "\"file\": \"${file}\", \"compiler\": \"${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}\"")
  set(text "")
  set(rest ${ARGN})
  while(rest)
    list(POP_FRONT rest key value)
    string(APPEND fields ", \"${key}\": \"${value}\"")
    string(APPEND text ", ${key} ${value}")
  endwhile()
  set_property(GLOBAL APPEND_STRING PROPERTY AVSBG_BUILT_JSON "\n    \"${name}\": {${fields}},")
  set_property(GLOBAL APPEND PROPERTY AVSBG_SUMMARY "${name}: ${file}${text}")
endfunction()

# avsbg_record_skipped(NAME REASON): the library NAME is not built. REASON is a sentence, with what to do about it.
function(avsbg_record_skipped name reason)
  string(REPLACE "\\" "/" escaped "${reason}")
  string(REPLACE "\"" "'" escaped "${escaped}")
  string(REPLACE ";" "," escaped "${escaped}")
  string(REGEX REPLACE "[ \t\r\n]+" " " escaped "${escaped}")
  set_property(GLOBAL APPEND_STRING PROPERTY AVSBG_SKIPPED_JSON "\n    \"${name}\": \"${escaped}\",")
  set_property(GLOBAL APPEND PROPERTY AVSBG_SUMMARY "${name}: SKIPPED. ${escaped}")
endfunction()

# avsbg_finish_record(): prints the summary and installs the record. Call it once, last.
function(avsbg_finish_record)
  get_property(summary GLOBAL PROPERTY AVSBG_SUMMARY)
  foreach(line IN LISTS summary)
    message(STATUS "avsbg: ${line}")
  endforeach()
  foreach(kind IN ITEMS BUILT SKIPPED)
    get_property(entries GLOBAL PROPERTY AVSBG_${kind}_JSON)
    string(REGEX REPLACE ",$" "" entries "${entries}")
    set(json_${kind} "{${entries}\n  }")
  endforeach()
  file(WRITE ${PROJECT_BINARY_DIR}/native.json
    "{\n  \"built\": ${json_BUILT},\n  \"skipped\": ${json_SKIPPED}\n}\n")
  install(FILES ${PROJECT_BINARY_DIR}/native.json DESTINATION runtime/lib)
endfunction()
