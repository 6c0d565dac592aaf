/* The instructions by name. The letters behind a name say what the arguments are, one after the other: v a block of
   numbers, m a block of booleans (bytes 0 and 1), n a number, t a threshold. Those that are one expression are listed in
   `expressions.h` with what they compute; of these lists X takes more than a name. */

#include "expressions.h"

#define ENUMERATED(name, ...) OP_##name,
#define NAMED(name, ...) #name,
#define INSTRUCTIONS(X)                                                                                                \
    OF_ONE(X) OF_TWO(X) OF_FIRST(X) OF_SECOND(X) SUMS(X)                                                               \
    X(load_BF16) X(load_F16) X(load_F32) X(load_F64) X(load_product) X(load_turned)                                    \
    X(load_bits) X(store_bits)                                                                                         \
    X(store_BF16) X(store_F16) X(store_F32) X(store_F64)                                                               \
    X(fill_n) X(set_n) X(pow_vv) X(pow_vn) X(pow_nv)                                                                   \
    X(where_mvv) X(where_mvn) X(where_mnv) X(where_mnn) X(where_nvv) X(where_nvn) X(where_nnv)                         \
    X(above_vt) X(bernoulli_n) X(bernoulli_v)                                                                          \
    X(row_sum_v) X(row_max_v) X(row_rank_v)                                                                            \
    X(count_m) X(maximum_v) X(minimum_v)                                                                               \
    X(histogram_v) X(window_v) X(ties_v) X(kth_v) X(order_v) X(order_digits_v)
