/* Made of compiler/ops/table.py by expressions.py: instruction, type of its arguments, type of its result,
   the result as an expression in x and y, or what is summed of elements of a and b. */

#define OF_ONE(X) \
    X(neg_v, float, float, -x) \
    X(abs_v, float, float, fabsf(x)) \
    X(sign_v, float, float, (float)((x > 0) - (x < 0))) \
    X(sqrt_v, float, float, sqrtf(x)) \
    X(trunc_v, float, float, truncf(x)) \
    X(exp_v, float, float, (float)exp_of(x)) \
    X(log_v, float, float, (float)log_of_any(x)) \
    X(sin_v, float, float, SIN(x, 0)) \
    X(cos_v, float, float, SIN(x, 1)) \
    X(tanh_v, float, float, (float)tanh_of(x)) \
    X(acos_v, float, float, (float)acos_of(x)) \
    X(not_m, uint8_t, uint8_t, !x) \
    X(number_m, uint8_t, float, (float)x)

#define OF_TWO(X) \
    X(add_vv, float, float, x + y) \
    X(sub_vv, float, float, x - y) \
    X(mul_vv, float, float, x * y) \
    X(div_vv, float, float, x / y) \
    X(min_vv, float, float, x != x ? x : y != y ? y : y < x ? y : x) \
    X(max_vv, float, float, x != x ? x : y != y ? y : y > x ? y : x) \
    X(lt_vv, float, uint8_t, x < y) \
    X(le_vv, float, uint8_t, x <= y) \
    X(gt_vv, float, uint8_t, x > y) \
    X(ge_vv, float, uint8_t, x >= y) \
    X(eq_vv, float, uint8_t, x == y) \
    X(ne_vv, float, uint8_t, x != y) \
    X(and_mm, uint8_t, uint8_t, x & y) \
    X(or_mm, uint8_t, uint8_t, x | y)

#define OF_FIRST(X) \
    X(add_vn, float, float, x + y) \
    X(sub_vn, float, float, x - y) \
    X(mul_vn, float, float, x * y) \
    X(div_vn, float, float, x / y) \
    X(min_vn, float, float, x != x ? x : y != y ? y : y < x ? y : x) \
    X(max_vn, float, float, x != x ? x : y != y ? y : y > x ? y : x) \
    X(lt_vn, float, uint8_t, x < y) \
    X(le_vn, float, uint8_t, x <= y) \
    X(gt_vn, float, uint8_t, x > y) \
    X(ge_vn, float, uint8_t, x >= y) \
    X(eq_vn, float, uint8_t, x == y) \
    X(ne_vn, float, uint8_t, x != y)

#define OF_SECOND(X) \
    X(add_nv, float, float, x + y) \
    X(sub_nv, float, float, x - y) \
    X(mul_nv, float, float, x * y) \
    X(div_nv, float, float, x / y) \
    X(min_nv, float, float, x != x ? x : y != y ? y : y < x ? y : x) \
    X(max_nv, float, float, x != x ? x : y != y ? y : y > x ? y : x) \
    X(lt_nv, float, uint8_t, x < y) \
    X(le_nv, float, uint8_t, x <= y) \
    X(gt_nv, float, uint8_t, x > y) \
    X(ge_nv, float, uint8_t, x >= y) \
    X(eq_nv, float, uint8_t, x == y) \
    X(ne_nv, float, uint8_t, x != y)

#define SUMS(X) \
    X(sum_v, (double)a[i]) \
    X(dot_vv, (double)a[i] * (double)b[i])
