#include "team.h"

#include <unistd.h>

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <new>
#include <thread>

namespace fasthg {

namespace {

class Team {
   public:
    void post(const std::shared_ptr<Job>& job, int workers) {
        std::lock_guard<std::mutex> lock(mutex_);
        for (; workers_ < workers; workers_++) {
            std::thread([this] { serve(); }).detach();
        }
        for (int i = 0; i < workers; i++) {
            openings_.push_back(job);
        }
        wake_.notify_all();
    }

    // Workers that have not come yet need not come.
    void withdraw(const std::shared_ptr<Job>& job) {
        std::lock_guard<std::mutex> lock(mutex_);
        for (auto opening = openings_.begin(); opening != openings_.end();) {
            opening = *opening == job ? openings_.erase(opening) : opening + 1;
        }
    }

   private:
    void serve() {
        while (true) {
            std::shared_ptr<Job> job;
            {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [this] { return !openings_.empty(); });
                job = std::move(openings_.front());
                openings_.pop_front();
            }
            job->work();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<std::shared_ptr<Job>> openings_;
    int workers_ = 0;
};

// Never destroyed: its workers wait in it until the process ends. A forked child has no workers and takes a new team.
Team& team() {
    static std::mutex mutex;
    static Team* current = nullptr;
    static pid_t owner = 0;
    std::lock_guard<std::mutex> lock(mutex);
    if (owner != getpid()) {
        current = new Team;
        owner = getpid();
    }
    return *current;
}

struct Scratch {
    float* memory = nullptr;
    std::size_t floats = 0;
    ~Scratch() { ::operator delete[](memory, std::align_val_t(64)); }
};

}  // namespace

void work_together(const std::shared_ptr<Job>& job, int threads) {
    if (threads > 1) {
        team().post(job, threads - 1);
    }
    job->work();
    if (threads > 1) {
        team().withdraw(job);
    }
}

float* scratch(std::size_t floats) {
    static thread_local Scratch mine;
    if (mine.floats < floats) {
        ::operator delete[](mine.memory, std::align_val_t(64));
        mine.memory = nullptr;
        mine.floats = 0;
        mine.memory = static_cast<float*>(::operator new[](floats * sizeof(float), std::align_val_t(64)));
        mine.floats = floats;
    }
    return mine.memory;
}

}  // namespace fasthg
