/* Forget one instruction set's names before the next. */
#undef VEC
#undef IVEC
#undef PANEL
#undef PANELS
#undef INLINE
#undef V
#undef NAME
#undef TILE
#undef LANES
#undef TARGET
