#include "source/segments.h"

#include <cstring>

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <utility>

#include "source/segments_file.h"
#include "source/segments_process.h"
#include "source/touched_pages.h"

namespace vmi {

namespace {

// Two for each segment that an ELF core can have: what the file holds of it, and what not.
constexpr size_t kMaxSegments = 131'072;
// A process has some 65,000 mappings (vm.max_map_count): a file of more runs than this is mapped
// once, from the first run to the last.
constexpr size_t kMappingsPerFile = 64;

struct Segment {
  Range range;
  // One of: a mapping, an address in the process, or nothing where the page is RAM that no dump
  // holds.
  std::shared_ptr<FileMapping> file;
  bool absent = false;
  // With an address in the process, where it is anonymous memory.
  std::unique_ptr<TouchedPages> touched;
  // In the mapping or the process.
  uint64_t from = 0;
};

// Bytes from `address` to the end of a read of `length`, cut where addresses end.
size_t WithinAddresses(uint64_t address, size_t length) {
  const uint64_t room = UINT64_MAX - address;
  return length == 0 || length - 1 <= room ? length : static_cast<size_t>(room) + 1;
}

class SegmentSource final : public PhysicalSource {
 public:
  SegmentSource(std::vector<Segment> segments, std::unique_ptr<GuestProcess> process, bool writable)
      : segments_(std::move(segments)), process_(std::move(process)), writable_(writable) {
    for (const Segment& segment : segments_) {
      mapped_ = mapped_ && (segment.file != nullptr || segment.absent);
      if (!ranges_.empty() && ranges_.back().last() + 1 == segment.range.start) {
        ranges_.back().length += segment.range.length;
      } else {
        ranges_.push_back(segment.range);
      }
    }
  }

  const std::vector<Range>& ranges() const override { return ranges_; }
  bool mapped() const override { return mapped_; }
  // process_vm_readv is a copy by the kernel, on whichever CPU calls it.
  bool parallel() const override { return !mapped_; }

  const uint8_t* Direct(uint64_t physical, size_t length) override {
    const Segment* segment = Find(physical);
    if (segment == nullptr || segment->file == nullptr || length == 0) return nullptr;
    const uint64_t from = physical - segment->range.start;
    if (length > segment->range.length - from) return nullptr;
    return segment->file->Direct(segment->from + from, length);
  }

  bool Flat(uint64_t physical, uint64_t length, FlatRun* run) override {
    const Segment* segment = Find(physical);
    if (segment == nullptr || segment->file == nullptr) return false;
    const uint64_t from = physical - segment->range.start;
    if (length > segment->range.length - from) return false;
    *run = segment->file->Flat(segment->from + from);
    return true;
  }

  Status Read(ReadRequest* requests, size_t count) override {
    PieceBatch batch;
    for (size_t i = 0; i < count; ++i) {
      ReadRequest& request = requests[i];
      request.transferred = 0;
      const size_t length = WithinAddresses(request.physical, request.length);
      for (size_t done = 0; done < length;) {
        const uint64_t address = request.physical + done;
        const Segment* segment = Find(address);
        if (segment == nullptr || segment->absent) break;
        const uint64_t from = address - segment->range.start;
        auto part =
            static_cast<size_t>(std::min<uint64_t>(length - done, segment->range.length - from));
        bool zeroes = false;
        if (segment->touched != nullptr) {
          const TouchedPages::Part run = segment->touched->Next(from, part);
          part = run.length;
          zeroes = !run.touched;
        }
        if (segment->file == nullptr && !zeroes) {
          if (batch.count == kBatch) {
            Status status = Flush(&batch);
            if (!status.ok()) return status;
          }
          batch.pieces[batch.count] = {segment->from + from, request.into + done, part, 0};
          batch.requests[batch.count] = &request;
          batch.offsets[batch.count++] = done;
        } else {
          // What comes before it must be known to have been read.
          if (batch.count > 0 && batch.requests[batch.count - 1] == &request) {
            Status status = Flush(&batch);
            if (!status.ok()) return status;
          }
          if (request.transferred != done) break;
          size_t copied = part;
          if (zeroes) {
            std::memset(request.into + done, 0, part);
          } else {
            copied = segment->file->Read(segment->from + from, request.into + done, part);
          }
          request.transferred += copied;
          if (copied < part) break;
        }
        done += part;
      }
    }
    return Flush(&batch);
  }

  bool writable() const override { return writable_; }

  Result<size_t> Write(uint64_t physical, const uint8_t* from, size_t length) override {
    length = WithinAddresses(physical, length);
    size_t done = 0;
    while (done < length) {
      const Segment* segment = Find(physical + done);
      if (segment == nullptr || segment->absent) break;
      const uint64_t at = physical + done - segment->range.start;
      const auto part =
          static_cast<size_t>(std::min<uint64_t>(length - done, segment->range.length - at));
      auto written = segment->file != nullptr
                         ? segment->file->Write(segment->from + at, from + done, part)
                         : process_->Write(segment->from + at, from + done, part);
      if (!written.ok()) return written;
      done += written.value();
      if (written.value() < part) break;
    }
    return done;
  }

  bool NextData(uint64_t from, uint64_t last, uint64_t limit, Range* run) override {
    while (true) {
      const Segment* segment = Find(from);
      if (segment == nullptr) return false;
      const uint64_t start = segment->range.start;
      const uint64_t segment_last = std::min(last, segment->range.last());
      if (segment->file != nullptr) {
        // Wraps, and back: where the file has the segment.
        const uint64_t shift = segment->from - start;
        if (segment->file->NextData(from + shift, segment_last + shift, limit, run)) {
          run->start -= shift;
          return true;
        }
      } else if (segment->touched != nullptr) {
        if (segment->touched->NextInMemory(from - start, segment_last - start, limit, run)) {
          run->start += start;
          return true;
        }
      } else if (!segment->absent) {
        *run = {from, std::min(segment_last - from + 1, limit)};
        return true;
      }
      if (segment_last == last) return false;
      from = segment_last + 1;
    }
  }

  bool Absent(uint64_t physical) override {
    const Segment* segment = Find(physical);
    if (segment == nullptr || segment->absent) return segment != nullptr;
    return segment->file != nullptr &&
           !segment->file->IsPresent(segment->from + (physical - segment->range.start));
  }

  Status Begin() override { return process_ == nullptr ? Status() : process_->CheckAliveLately(); }

  void Close() override {
    segments_.clear();
    process_.reset();
  }

 private:
  static constexpr size_t kBatch = 256;
  struct PieceBatch {
    size_t count = 0;
    std::array<GuestProcess::Piece, kBatch> pieces;
    std::array<ReadRequest*, kBatch> requests;
    std::array<size_t, kBatch> offsets;
  };

  const Segment* Find(uint64_t address) const {
    // Few: a PC has two or three.
    if (segments_.size() <= 8) {
      for (const Segment& segment : segments_) {
        if (segment.range.Contains(address)) return &segment;
      }
      return nullptr;
    }
    auto after = std::upper_bound(
        segments_.begin(), segments_.end(), address,
        [](uint64_t value, const Segment& segment) { return value < segment.range.start; });
    if (after == segments_.begin()) return nullptr;
    --after;
    return after->range.Contains(address) ? &*after : nullptr;
  }

  Status Flush(PieceBatch* batch) {
    if (batch->count == 0) return {};
    Status status = process_->Read(batch->pieces.data(), batch->count);
    for (size_t i = 0; i < batch->count; ++i) {
      // A piece counts only when all before it in its request was read.
      ReadRequest& request = *batch->requests[i];
      if (request.transferred == batch->offsets[i])
        request.transferred += batch->pieces[i].transferred;
    }
    batch->count = 0;
    return status;
  }

  std::vector<Segment> segments_;
  std::unique_ptr<GuestProcess> process_;
  std::vector<Range> ranges_;
  bool mapped_ = true;
  const bool writable_;
};

Status CheckSpecs(const std::vector<SegmentSpec>& specs, bool has_pid) {
  if (specs.empty() || specs.size() > kMaxSegments) {
    return {Code::kMisuse, "Expected between 1 and " + std::to_string(kMaxSegments) +
                               " segments but received " + std::to_string(specs.size())};
  }
  const SegmentSpec* before = nullptr;
  uint64_t total = 0;
  for (const SegmentSpec& spec : specs) {
    const std::string which = "the segment at " + Hex(spec.physical);
    if (spec.physical % kPageSize != 0) {
      return {Code::kMisuse, "Expected segments that start at a page but received " + which};
    }
    if (spec.length == 0 || spec.length % kPageSize != 0) {
      return {Code::kMisuse, "Expected segments of whole pages but received " + which + " with " +
                                 std::to_string(spec.length) + " bytes"};
    }
    if (spec.length > INT64_MAX || spec.length - 1 > UINT64_MAX - spec.physical ||
        spec.offset > INT64_MAX - spec.length) {
      return {Code::kMisuse,
              "Expected segments that end within 64 bits, at an offset below 2^63, but received " +
                  which + " with " + std::to_string(spec.length) + " bytes at offset " +
                  Hex(spec.offset)};
    }
    if (spec.kind == SegmentSpec::Kind::kProcess && !has_pid) {
      return {Code::kMisuse, "Expected a pid for process segments but received none"};
    }
    if (!spec.present.empty() && spec.present.size() != (spec.length / kPageSize + 7) / 8) {
      return {Code::kMisuse, "Expected one bit for each page of " + which + " but received " +
                                 std::to_string(spec.present.size()) + " bytes"};
    }
    if (before != nullptr && before->physical + (before->length - 1) >= spec.physical) {
      return {Code::kMisuse, "Expected segments that do not overlap but received " + which +
                                 " and the one at " + Hex(before->physical)};
    }
    total += spec.length;
    if (total > INT64_MAX)
      return {Code::kMisuse, "Expected segments of less than 2^63 bytes in all but received more"};
    before = &spec;
  }
  return {};
}

// Maps the files that segments are in.
class FileOpener {
 public:
  explicit FileOpener(const std::vector<SegmentSpec>& specs) {
    for (const SegmentSpec& spec : specs) {
      if (spec.kind != SegmentSpec::Kind::kFile) continue;
      File& file = files_[spec.fd];
      ++file.runs;
      file.start = std::min(file.start, spec.offset);
      file.end = std::max(file.end, spec.offset + spec.length);
    }
  }

  Status Open(SegmentSpec* spec, Segment* segment) {
    File& file = files_[spec->fd];
    if (file.file == nullptr) {
      auto opened = SegmentFile::Open(spec->fd);
      if (!opened.ok()) return opened.TakeError();
      file.file = std::move(opened.value());
    }
    if (file.runs <= kMappingsPerFile || !spec->present.empty()) {
      return Map(file.file, spec->offset, spec->length, PageSet(std::move(spec->present)),
                 &segment->file);
    }
    if (file.whole == nullptr) {
      Status mapped = Map(file.file, file.start, file.end - file.start, PageSet(), &file.whole);
      if (!mapped.ok()) return mapped;
    }
    segment->file = file.whole;
    segment->from = spec->offset - file.start;
    return {};
  }

 private:
  struct File {
    std::shared_ptr<SegmentFile> file;
    size_t runs = 0;
    uint64_t start = UINT64_MAX;
    uint64_t end = 0;
    std::shared_ptr<FileMapping> whole;
  };

  static Status Map(const std::shared_ptr<SegmentFile>& file, uint64_t offset, uint64_t length,
                    PageSet present, std::shared_ptr<FileMapping>* mapping) {
    auto mapped = FileMapping::Map(file, offset, length, std::move(present));
    if (!mapped.ok()) return mapped.TakeError();
    *mapping = std::move(mapped.value());
    return {};
  }

  std::map<int, File> files_;
};

}  // namespace

Result<std::unique_ptr<PhysicalSource>> OpenSegments(std::vector<SegmentSpec> specs,
                                                     std::optional<pid_t> pid, bool writable) {
  std::sort(specs.begin(), specs.end(),
            [](const SegmentSpec& a, const SegmentSpec& b) { return a.physical < b.physical; });
  Status checked = CheckSpecs(specs, pid.has_value());
  if (!checked.ok()) return checked;

  std::unique_ptr<GuestProcess> process;
  if (pid.has_value()) {
    auto opened = GuestProcess::Open(*pid);
    if (!opened.ok()) return opened.TakeError();
    process = std::move(opened.value());
  }

  FileOpener files(specs);
  std::vector<Segment> segments;
  segments.reserve(specs.size());
  std::shared_ptr<PageMap> pages;
  bool reads_process = false;
  for (SegmentSpec& spec : specs) {
    Segment segment;
    segment.range = {spec.physical, spec.length};
    switch (spec.kind) {
      case SegmentSpec::Kind::kAbsent:
        segment.absent = true;
        break;
      case SegmentSpec::Kind::kProcess:
        segment.from = spec.offset;
        if (spec.anonymous) {
          if (pages == nullptr) pages = std::make_shared<PageMap>(*pid);
          segment.touched = std::make_unique<TouchedPages>(pages, spec.offset, spec.length);
        }
        if (reads_process) break;
        // Whether we may: better now than at the first read.
        reads_process = true;
        checked = process->TryRead(spec.offset);
        break;
      case SegmentSpec::Kind::kFile:
        checked = files.Open(&spec, &segment);
        break;
    }
    if (!checked.ok()) return checked;
    segments.push_back(std::move(segment));
  }
  return std::unique_ptr<PhysicalSource>(
      new SegmentSource(std::move(segments), std::move(process), writable));
}

}  // namespace vmi
