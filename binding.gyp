{
  "targets": [
    {
      "target_name": "vmi_addon",
      "sources": [
        "native/core/address_space.cpp",
        "native/core/bus_guard.cpp",
        "native/core/gather.cpp",
        "native/core/helper_thread.cpp",
        "native/core/lists.cpp",
        "native/core/memory.cpp",
        "native/core/node_reader.cpp",
        "native/core/plan.cpp",
        "native/core/proofs.cpp",
        "native/core/radix_tree.cpp",
        "native/core/read_paths.cpp",
        "native/core/result.cpp",
        "native/core/scan.cpp",
        "native/core/turns.cpp",
        "native/source/libvmi_call.cpp",
        "native/source/libvmi_config.cpp",
        "native/source/libvmi_events.cpp",
        "native/source/libvmi_library.cpp",
        "native/source/libvmi_local.cpp",
        "native/source/libvmi_process.cpp",
        "native/source/libvmi_remote.cpp",
        "native/source/libvmi_session.cpp",
        "native/source/libvmi_kvm.cpp",
        "native/source/libvmi_source.cpp",
        "native/source/libvmi_output.cpp",
        "native/source/libvmi_wire.cpp",
        "native/source/libvmi_xen.cpp",
        "native/source/read_turns.cpp",
        "native/source/segments.cpp",
        "native/source/segments_file.cpp",
        "native/source/segments_process.cpp",
        "native/addon/addon.cpp",
        "native/addon/address_space_object.cpp",
        "native/addon/arguments.cpp",
        "native/addon/finder.cpp",
        "native/addon/libvmi_object.cpp",
        "native/addon/loader.cpp",
        "native/addon/memory_object.cpp",
        "native/addon/plan_object.cpp",
        "native/addon/scan_worker.cpp"
      ],
      "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": [
        "NAPI_VERSION=8",
        "NODE_ADDON_API_CPP_EXCEPTIONS_ALL",
        "NODE_ADDON_API_DISABLE_DEPRECATED",
        "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS",
        "_FILE_OFFSET_BITS=64"
      ],
      "cflags_cc!": ["-fno-exceptions", "-fno-rtti"],
      "cflags_cc": ["-std=c++17", "-fexceptions", "-fvisibility=hidden", "-Wall", "-Wextra"],
      "ldflags": [
        "-Wl,-z,nodelete",
        "-Wl,--version-script=<(module_root_dir)/native/addon/exports.map"
      ]
    },
    {
      "target_name": "libvmi_host",
      "type": "executable",
      "product_extension": "",
      "sources": [
        "native/core/result.cpp",
        "native/host/libvmi_host.cpp",
        "native/source/libvmi_call.cpp",
        "native/source/libvmi_config.cpp",
        "native/source/libvmi_events.cpp",
        "native/source/libvmi_kvm.cpp",
        "native/source/libvmi_library.cpp",
        "native/source/libvmi_local.cpp",
        "native/source/libvmi_wire.cpp",
        "native/source/libvmi_xen.cpp"
      ],
      "defines": ["_FILE_OFFSET_BITS=64"],
      "cflags_cc!": ["-fno-exceptions", "-fno-rtti"],
      "cflags_cc": ["-std=c++17", "-fexceptions", "-Wall", "-Wextra"],
      "libraries": ["-ldl", "-lpthread"]
    }
  ]
}
