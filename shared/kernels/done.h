/* Forget one instruction set's names before the next. */
#undef VEC
#undef IVEC
#undef WIDE
#undef WIDE_INT
#undef WIDE_LANES
#undef PANEL
#undef PANELS
#undef INLINE
#undef V
#undef NAME
#undef TILE
#undef LANES
#undef TARGET
