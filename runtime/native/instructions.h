/* The instructions by name. The letters behind a name say what the arguments are, one after the other: v a block of
   numbers, m a block of booleans (bytes 0 and 1), n a number, t a threshold. */

#define ENUMERATED(name) OP_##name,
#define NAMED(name) #name,
#define BINARY(X, name) X(name##_vv) X(name##_vn) X(name##_nv)
#define INSTRUCTIONS(X)                                                                                                \
    X(load_BF16) X(load_F16) X(load_F32) X(load_F64) X(load_product) X(load_turned)                                    \
    X(load_bits) X(store_bits)                                                                                         \
    X(store_BF16) X(store_F16) X(store_F32) X(store_F64)                                                               \
    BINARY(X, add) BINARY(X, sub) BINARY(X, mul) BINARY(X, div) BINARY(X, min) BINARY(X, max)                          \
    BINARY(X, lt) BINARY(X, le) BINARY(X, gt) BINARY(X, ge) BINARY(X, eq) BINARY(X, ne)                                \
    X(and_mm) X(or_mm) X(not_m) X(number_m)                                                                            \
    X(neg_v) X(abs_v) X(sign_v) X(sqrt_v) X(trunc_v) X(fill_n) X(set_n)                                                \
    X(exp_v) X(log_v) X(sin_v) X(cos_v) X(tanh_v) X(acos_v) BINARY(X, pow)                                             \
    X(where_mvv) X(where_mvn) X(where_mnv) X(where_mnn) X(where_nvv) X(where_nvn) X(where_nnv)                         \
    X(above_vt) X(bernoulli_n) X(bernoulli_v)                                                                          \
    X(row_sum_v) X(row_max_v) X(row_rank_v)                                                                            \
    X(sum_v) X(dot_vv) X(count_m) X(maximum_v) X(minimum_v)                                                            \
    X(histogram_v) X(window_v) X(ties_v) X(kth_v) X(order_v) X(order_digits_v)
