// A bounded queue between two threads. It is closed once: with an error, which the other end then throws, or without.
// Without room, it lets the producer wait, or drops the oldest item.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

namespace avsbg_run {

template <typename Item>
class Channel {
 public:
  explicit Channel(std::size_t capacity, bool drops = false) : capacity_(capacity), drops_(drops) {}

  // False where the channel was closed.
  bool put(Item item) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (drops_ && !closed_ && items_.size() >= capacity_) {
      items_.pop_front();
      ++dropped;
    }
    changed_.wait(lock, [&] { return closed_ || items_.size() < capacity_; });
    if (error_) std::rethrow_exception(error_);
    if (closed_) return false;
    items_.push_back(std::move(item));
    if (items_.size() > most) most = items_.size();
    changed_.notify_all();
    return true;
  }

  // Waits for an item; nothing once the channel is closed and empty.
  std::optional<Item> get() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return closed_ || !items_.empty(); });
    if (error_) std::rethrow_exception(error_);
    if (items_.empty()) return std::nullopt;
    Item item = std::move(items_.front());
    items_.pop_front();
    changed_.notify_all();
    return item;
  }

  // The first error stays.
  void close(std::exception_ptr error = nullptr) {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    if (!error_) error_ = error;
    changed_.notify_all();
  }

  // Throws what it was closed with.
  void check() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (error_) std::rethrow_exception(error_);
  }

  std::size_t size() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return items_.size();
  }

  std::size_t most = 0;      // that waited at once
  std::int64_t dropped = 0;  // to make room

 private:
  const std::size_t capacity_;
  const bool drops_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> items_;
  bool closed_ = false;
  std::exception_ptr error_;
};

// A thread that is joined where its owner ends.
class Worker {
 public:
  Worker(std::function<void()> work, std::function<void()> stop) : stop_(std::move(stop)), thread_(std::move(work)) {}
  ~Worker() {
    stop_();
    join();
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  void join() {
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::function<void()> stop_;
  std::thread thread_;
};

}  // namespace avsbg_run
