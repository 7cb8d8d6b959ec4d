/* X(0) X(1) ... for the rows of a tile: accumulators are spelled out, arrays of vectors would live in memory. */
#ifndef KERNELS_MAC_ROWS_H
#define KERNELS_MAC_ROWS_H

#define ROWS1(X)  X(0)
#define ROWS2(X)  ROWS1(X) X(1)
#define ROWS3(X)  ROWS2(X) X(2)
#define ROWS4(X)  ROWS3(X) X(3)
#define ROWS5(X)  ROWS4(X) X(4)
#define ROWS6(X)  ROWS5(X) X(5)
#define ROWS7(X)  ROWS6(X) X(6)
#define ROWS8(X)  ROWS7(X) X(7)
#define ROWS9(X)  ROWS8(X) X(8)
#define ROWS10(X) ROWS9(X) X(9)
#define ROWS11(X) ROWS10(X) X(10)
#define ROWS12(X) ROWS11(X) X(11)
#define ROWS13(X) ROWS12(X) X(12)
#define ROWS14(X) ROWS13(X) X(13)
#define ROWS15(X) ROWS14(X) X(14)
#define ROWS16(X) ROWS15(X) X(15)

#endif
