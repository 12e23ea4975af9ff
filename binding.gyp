{
  "targets": [
    {
      "target_name": "vmi_addon",
      "sources": [
        "native/core/paging/address_space.cpp",
        "native/core/bus_guard.cpp",
        "native/core/gather/gather.cpp",
        "native/core/helper_thread.cpp",
        "native/core/lists/lists.cpp",
        "native/core/memory.cpp",
        "native/core/lists/node_reader.cpp",
        "native/core/gather/plan.cpp",
        "native/core/lookup/radix_tree.cpp",
        "native/core/lookup/read_paths.cpp",
        "native/core/result.cpp",
        "native/core/scan/scan.cpp",
        "native/source/libvmi/call.cpp",
        "native/source/libvmi/config.cpp",
        "native/source/libvmi/events.cpp",
        "native/source/libvmi/library.cpp",
        "native/source/libvmi/local.cpp",
        "native/source/libvmi/process.cpp",
        "native/source/libvmi/remote.cpp",
        "native/source/libvmi/session.cpp",
        "native/source/libvmi/kvm.cpp",
        "native/source/libvmi/source.cpp",
        "native/source/libvmi/output.cpp",
        "native/source/libvmi/wire.cpp",
        "native/source/libvmi/xen.cpp",
        "native/source/segments.cpp",
        "native/source/segments_file.cpp",
        "native/source/segments_process.cpp",
        "native/source/touched_pages.cpp",
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
      "include_dirs": ["native", "<!(node -p \"require('node-addon-api').include_dir\")"],
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
        "native/source/libvmi/call.cpp",
        "native/source/libvmi/config.cpp",
        "native/source/libvmi/events.cpp",
        "native/source/libvmi/kvm.cpp",
        "native/source/libvmi/library.cpp",
        "native/source/libvmi/local.cpp",
        "native/source/libvmi/wire.cpp",
        "native/source/libvmi/xen.cpp"
      ],
      "include_dirs": ["native"],
      "defines": ["_FILE_OFFSET_BITS=64"],
      "cflags_cc!": ["-fno-exceptions", "-fno-rtti"],
      "cflags_cc": ["-std=c++17", "-fexceptions", "-Wall", "-Wextra"],
      "libraries": ["-ldl", "-lpthread"]
    }
  ]
}
