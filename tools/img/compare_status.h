// Exit statuses of compare, qemu-img's.
#pragma once

namespace underlay::img {

inline constexpr int kIdentical = 0;
inline constexpr int kDifferent = 1;
inline constexpr int kCannotOpen = 2;  // also of a wrong use: 1 would say that the images differ
inline constexpr int kNoOpinion = 2;   // --second-opinion: the library has nothing to say
inline constexpr int kMapFailed = 3;
inline constexpr int kReadFailed = 4;

}  // namespace underlay::img
