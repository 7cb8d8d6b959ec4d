/* Forms of k_dequant_rows with the same bits. */
#ifndef KERNELS_QUANT_PRIV_H
#define KERNELS_QUANT_PRIV_H

#include "kernels/mac.h"

void k_dequant_row(const struct k_code_rows *g, int64_t row);
bool k_dequant_rows_avx2(const struct k_code_rows *g); /* false: does not know these types or places */

#endif
