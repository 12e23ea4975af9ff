#include "libvmi_config.h"

#include <mutex>
#include <utility>

#include "libvmi_kvm.h"

namespace libvmi {
namespace {

// libvmi's parser for libvmi.conf keeps its state in variables of the process.
std::timed_mutex& ParserLock() {
  static auto* lock = new std::timed_mutex;
  return *lock;
}

// vmi_init_error_t as vmi_init_os() sets it. 0.12 had one more value before the last two.
std::string OsErrorText(InitError error, bool renumbered) {
  if (!renumbered && error > 7) --error;
  switch (error) {
    case 4:
      return "libvmi could not set up paging";
    case 5:
      return "libvmi could not find the kernel that its configuration describes";
    case 7:
      return "libvmi found no configuration";
    case 8:
      return "the configuration names no operating system or has no entry for this guest";
    default:
      return "libvmi did not recognise the operating system";
  }
}

struct Job {
  Config config;
  Os os = 0;
  InitError error = 0;
  std::string refused;
};

void RunWithTable(const Library& library, Instance instance, Job* job) {
  const Glib& glib = library.glib();
  if (!glib.usable()) {
    job->refused = "this libvmi is linked to no GLib that takes a GHashTable";
    return;
  }
  void* table = glib.g_hash_table_new(glib.g_str_hash, glib.g_str_equal);
  for (ConfigEntry& entry : job->config.entries) {
    // libvmi loads every number through an addr_t*, also where the value is small.
    static_assert(sizeof(entry.number) == sizeof(Address));
    void* value = entry.is_number ? static_cast<void*>(&entry.number) : entry.text.data();
    glib.g_hash_table_insert(table, entry.key.data(), value);
  }
  job->os = library.calls().vmi_init_os(instance, ConfigMode::kHashTable, table, &job->error);
  glib.g_hash_table_destroy(table);
}

}  // namespace

Session::Ticket InitOs(const std::shared_ptr<Session>& session, Config config,
                       std::function<void(vmi::Result<Os>, std::string log)> finish, Session::Duration deadline) {
  auto job = std::make_shared<Job>();
  job->config = std::move(config);
  const Library& library = session->library();
  const Session::Duration patience = session->options().deadline;
  Session::Work work = [job, &library, &options = session->options(), patience](const Calls& calls, Instance instance) {
    if (calls.vmi_init_os == nullptr) {
      job->refused = "this libvmi has no vmi_init_os";
      return;
    }
    if (!Answers(options, calls, instance)) {
      job->refused = "the guest does not answer any more: it has ended";
      return;
    }
    switch (job->config.mode) {
      case ConfigMode::kHashTable:
        RunWithTable(library, instance, job.get());
        break;
      case ConfigMode::kJsonPath:
        job->os = calls.vmi_init_os(instance, ConfigMode::kJsonPath, job->config.text.data(), &job->error);
        break;
      case ConfigMode::kString:
      case ConfigMode::kGlobalFile: {
        std::unique_lock<std::timed_mutex> lock(ParserLock(), patience);
        if (!lock.owns_lock()) {
          job->refused = "libvmi's configuration parser is busy in another instance";
          break;
        }
        void* text = job->config.mode == ConfigMode::kString ? job->config.text.data() : nullptr;
        job->os = calls.vmi_init_os(instance, job->config.mode, text, &job->error);
        break;
      }
    }
  };
  // The library outlives its calls: the session, which owns it, is held by the thread that runs them.
  return session->Post("vmi_init_os", std::move(work),
                       [job, finish = std::move(finish), renumbered = library.calls().vmi_pagecache_flush != nullptr](
                           vmi::Status status, std::string log) {
                         if (!status.ok()) return finish(std::move(status), std::move(log));
                         if (!job->refused.empty()) {
                           return finish({vmi::Code::kUnsupported, job->refused}, std::move(log));
                         }
                         if (job->os == 0) {
                           return finish({vmi::Code::kUnsupported, OsErrorText(job->error, renumbered)},
                                         std::move(log));
                         }
                         finish(job->os, std::move(log));
                       },
                       deadline);
}

}  // namespace libvmi
