// Work to be done later, on a ring thread or on a worker. Intrusive: queueing it allocates nothing.
#pragma once

#include <utility>

namespace underlay {

// In at most one queue at a time; must live until run() is called.
class Task {
 public:
  Task() = default;
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  virtual ~Task() = default;
  virtual void run() = 0;

 private:
  friend class TaskQueue;
  Task* next_ = nullptr;
};

// First in, first out. Not thread-safe.
class TaskQueue {
 public:
  bool empty() const { return first_ == nullptr; }
  void push(Task& task) {
    task.next_ = nullptr;
    (first_ == nullptr ? first_ : last_->next_) = &task;
    last_ = &task;
  }
  // REQUIRES: !empty().
  Task& pop() {
    Task* task = std::exchange(first_, first_->next_);
    return *task;
  }
  // Everything queued so far; this queue is empty then.
  TaskQueue take() { return std::exchange(*this, TaskQueue()); }

 private:
  Task* first_ = nullptr;
  Task* last_ = nullptr;
};

// A task that calls a method of the object that contains it.
template <auto Method>
class MethodTask;
template <class Owner, void (Owner::*Method)()>
class MethodTask<Method> final : public Task {
 public:
  explicit MethodTask(Owner& owner) : owner_(owner) {}
  void run() override { (owner_.*Method)(); }

 private:
  Owner& owner_;
};

}  // namespace underlay
