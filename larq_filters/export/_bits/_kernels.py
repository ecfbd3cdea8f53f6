"""The parts of the C program that do not depend on the network."""

from collections.abc import Iterable

HEAD = """\
typedef struct {
    int32_t height, width;          /* of the input */
    int32_t channels, groups;       /* of the input: so many channels, so many times */
    int32_t out_width, filters;     /* of the output: its width and its channels */
    int32_t rows, columns;          /* of the window */
    int32_t stride_y, stride_x, dilation_y, dilation_x, top, left;
    int32_t pad;                    /* of bits: 1, -1, or 0 for nothing */
} window;
"""

_PARTS = {
    "under": """\
/* The input position under a tap of a window, or -1 outside of the input. */
static int32_t under(const window *w, int32_t position, int32_t row, int32_t column)
{
    const int32_t y = position / w->out_width * w->stride_y - w->top + row * w->dilation_y;
    const int32_t x = position % w->out_width * w->stride_x - w->left + column * w->dilation_x;
    return y < 0 || y >= w->height || x < 0 || x >= w->width ? -1 : y * w->width + x;
}
""",
    "bit": """\
static int bit(const uint32_t *row, int32_t channel)
{
    return (int)(row[channel / 32] >> (channel % 32) & 1u);
}
""",
    "put": """\
/* Sets the bits of a row in order, so that those beyond the last channel are 0. */
static void put(uint32_t *row, int32_t channel, int value)
{
    if (channel % 32 == 0) {
        row[channel / 32] = 0;
    }
    row[channel / 32] |= (uint32_t)value << (channel % 32);
}
""",
    "ones": """\
static int32_t ones(uint32_t word)
{
    word -= word >> 1 & 0x55555555u;
    word = (word & 0x33333333u) + (word >> 2 & 0x33333333u);
    word = (word + (word >> 4)) & 0x0f0f0f0fu;
    return (int32_t)(word * 0x01010101u >> 24);
}
""",
    "binary_sum": """\
/* A sum of +1 and -1: XNOR and popcount. */
static int32_t binary_sum(const window *w, const uint32_t *input, const uint32_t *kernel,
                          int32_t position, int32_t filter)
{
    const int32_t each = (w->channels + 31) / 32, group = filter / (w->filters / w->groups);
    const uint32_t last = 0xffffffffu >> (each * 32 - w->channels);
    int32_t row, column, i, compared = 0, different = 0;
    kernel += filter * w->rows * w->columns * each;
    for (row = 0; row < w->rows; ++row) {
        for (column = 0; column < w->columns; ++column, kernel += each) {
            const int32_t at = under(w, position, row, column);
            if (at >= 0) {
                const uint32_t *bits = input + (at * w->groups + group) * each;
                for (i = 0; i < each; ++i) {
                    different += ones(bits[i] ^ kernel[i]);
                }
            } else if (w->pad == 0) {
                continue;
            } else {
                for (i = 0; i < each; ++i) {
                    const uint32_t all = i + 1 < each ? 0xffffffffu : last;
                    different += ones((w->pad > 0 ? all : 0u) ^ kernel[i]);
                }
            }
            compared += w->channels;
        }
    }
    return compared - 2 * different;
}
""",
    "signs_sum": """\
/* A sum of floats, each with the sign that a bit of the kernel gives it. */
static float signs_sum(const window *w, const float *input, const uint32_t *kernel,
                       int32_t position, int32_t filter)
{
    const int32_t each = (w->channels + 31) / 32, group = filter / (w->filters / w->groups);
    int32_t row, column, i;
    float sum = 0.0f;
    kernel += filter * w->rows * w->columns * each;
    for (row = 0; row < w->rows; ++row) {
        for (column = 0; column < w->columns; ++column, kernel += each) {
            const int32_t at = under(w, position, row, column);
            for (i = 0; at >= 0 && i < w->channels; ++i) {
                const float value = input[(at * w->groups + group) * w->channels + i];
                sum = bit(kernel, i) ? sum + value : sum - value;
            }
        }
    }
    return sum;
}
""",
    "real_sum": """\
static float real_sum(const window *w, const float *input, const float *kernel,
                      int32_t position, int32_t filter)
{
    const int32_t group = filter / (w->filters / w->groups);
    int32_t row, column, i;
    float sum = 0.0f;
    kernel += filter;
    for (row = 0; row < w->rows; ++row) {
        for (column = 0; column < w->columns; ++column, kernel += w->channels * w->filters) {
            const int32_t at = under(w, position, row, column);
            for (i = 0; at >= 0 && i < w->channels; ++i) {
                const float value = input[(at * w->groups + group) * w->channels + i];
                const float product = value * kernel[i * w->filters];
                sum = sum + product;
            }
        }
    }
    return sum;
}
""",
    "int8_sum": """\
static int32_t int8_sum(const window *w, const int8_t *input, const int8_t *kernel,
                        int32_t position, int32_t filter)
{
    const int32_t group = filter / (w->filters / w->groups);
    int32_t row, column, i, sum = 0;
    kernel += filter;
    for (row = 0; row < w->rows; ++row) {
        for (column = 0; column < w->columns; ++column, kernel += w->channels * w->filters) {
            const int32_t at = under(w, position, row, column);
            for (i = 0; at >= 0 && i < w->channels; ++i) {
                sum += input[(at * w->groups + group) * w->channels + i] * kernel[i * w->filters];
            }
        }
    }
    return sum;
}
""",
    "quantized": """\
static int8_t quantized(float value)
{
    const float clipped = value > 127.0f ? 127.0f : value < -127.0f ? -127.0f : value;
    const float moved = clipped + (clipped < 0.0f ? -0.5f : 0.5f);
    return (int8_t)moved;
}
""",
    "float_max": """\
static float float_max(const window *w, const float *input, int32_t position, int32_t channel)
{
    int32_t row, column, found = 0;
    float most = 0.0f;
    for (row = 0; row < w->rows; ++row) {
        for (column = 0; column < w->columns; ++column) {
            const int32_t at = under(w, position, row, column);
            if (at >= 0 && (!found || input[at * w->groups + channel] > most)) {
                most = input[at * w->groups + channel];
                found = 1;
            }
        }
    }
    return most;
}
""",
    "int_max": """\
static int32_t int_max(const window *w, const int32_t *input, int32_t position, int32_t channel)
{
    int32_t row, column, most = INT32_MIN;
    for (row = 0; row < w->rows; ++row) {
        for (column = 0; column < w->columns; ++column) {
            const int32_t at = under(w, position, row, column);
            if (at >= 0 && input[at * w->groups + channel] > most) {
                most = input[at * w->groups + channel];
            }
        }
    }
    return most;
}
""",
    "bit_max": """\
static int bit_max(const window *w, const uint32_t *input, int32_t position, int32_t channel)
{
    const int32_t each = (w->groups + 31) / 32;
    int32_t row, column;
    for (row = 0; row < w->rows; ++row) {
        for (column = 0; column < w->columns; ++column) {
            const int32_t at = under(w, position, row, column);
            if (at >= 0 && bit(input + at * each, channel)) {
                return 1;
            }
        }
    }
    return 0;
}
""",
    "average": """\
/* Over the positions inside of the input. */
static float average(const window *w, const float *input, int32_t position, int32_t channel)
{
    int32_t row, column, count = 0;
    float sum = 0.0f;
    for (row = 0; row < w->rows; ++row) {
        for (column = 0; column < w->columns; ++column) {
            const int32_t at = under(w, position, row, column);
            if (at >= 0) {
                sum = sum + input[at * w->groups + channel];
                ++count;
            }
        }
    }
    return sum / (float)count;
}
""",
}
NAMES = tuple(_PARTS)
_NEEDS = {"signs_sum": ("bit",), "bit_max": ("bit",), "binary_sum": ("ones",)}
_WINDOWS = tuple(name for name in _PARTS if name.endswith(("_sum", "_max")) or name == "average")


def parts(used: Iterable[str]) -> list[str]:
    """The functions that are used, with what they need, as C."""
    names = set(used)
    names |= {need for name in names for need in _NEEDS.get(name, ())}
    if names & set(_WINDOWS):
        names.add("under")
    head = [HEAD] if "under" in names else []
    return head + [text for name, text in _PARTS.items() if name in names]
