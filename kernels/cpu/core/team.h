// The CPU core's worker threads: they sleep between networks and help with whatever job is posted.
#pragma once

#include <memory>

namespace fasthg {

// Work that any number of threads may join at any time. A thread that joins late, because its core was taken by
// somebody else, finds the rest of the work, or nothing; nobody waits for it to come.
class Job {
   public:
    virtual ~Job() = default;
    virtual void work() = 0;
};

// Runs the job on the calling thread and, as they wake, on `threads` - 1 workers; returns when the caller's part is
// done. The workers are started by the first job that wants them, again after a fork, and last as long as the process.
void work_together(const std::shared_ptr<Job>& job, int threads);

// Memory of the calling thread, of at least so many floats, aligned to 64 bytes and kept for its next call.
float* scratch(std::size_t floats);

}  // namespace fasthg
