//! Vectors of 32-bit floats, as wide as the processor has them.
//!
//! Products of matrices are written once over [`Vector`] and compiled for each width; `widest!`
//! picks at run time. With another width sums have another order, so that bits are those of the
//! kind of machine.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

/// A kind of vector.
///
/// # Safety
///
/// All functions need the processor to have the instructions of the kind; `load` reads and `store`
/// writes [`LANES`](Self::LANES) elements.
pub(super) trait Vector: Copy {
    const LANES: usize;
    type Value: Copy;

    unsafe fn splat(value: f32) -> Self::Value;
    unsafe fn load(from: *const f32) -> Self::Value;
    unsafe fn store(value: Self::Value, to: *mut f32);
    /// `a b + c`.
    unsafe fn multiply_add(a: Self::Value, b: Self::Value, c: Self::Value) -> Self::Value;
    /// Negative elements become zero.
    unsafe fn rectify(value: Self::Value) -> Self::Value;
    /// Elements become zero where those of `by` are zero.
    unsafe fn where_not_zero(value: Self::Value, by: Self::Value) -> Self::Value;

    /// Fetches the line of memory at `from`, which need not be valid, into the second cache.
    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every processor of this architecture has the instruction, which reads nothing.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(from.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = from;
    }

    /// Transposes a square of as many rows as there are lanes; rows lie `stride` elements apart,
    /// those of the result `to_stride`.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        for row in 0..Self::LANES {
            for column in 0..Self::LANES {
                // SAFETY: the caller promises both squares.
                unsafe { *to.add(column * to_stride + row) = *from.add(row * stride + column) };
            }
        }
    }
}

/// Has the processor fetch the first 4 KiB of `elements` into its second cache.
#[inline(always)]
pub(super) fn fetch(elements: &[f32]) {
    for line in elements.chunks(16).take(64) {
        // SAFETY: nothing is read.
        unsafe { Portable::prefetch(line.as_ptr()) };
    }
}

/// Four lanes, on any processor.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Vector for Portable {
    const LANES: usize = 4;
    type Value = [f32; 4];

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 4] {
        [value; 4]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        // SAFETY: the caller promises four elements.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(value: [f32; 4], to: *mut f32) {
        // SAFETY: the caller promises four elements.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(value) }
    }

    #[inline(always)]
    unsafe fn multiply_add(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline(always)]
    unsafe fn rectify(value: [f32; 4]) -> [f32; 4] {
        value.map(|value| if value < 0.0 { 0.0 } else { value })
    }

    #[inline(always)]
    unsafe fn where_not_zero(value: [f32; 4], by: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| if by[lane] == 0.0 { 0.0 } else { value[lane] })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _CMP_NEQ_UQ, _mm256_and_ps, _mm256_cmp_ps, _mm256_fmadd_ps,
        _mm256_loadu_ps, _mm256_max_ps, _mm256_permute2f128_ps, _mm256_set1_ps, _mm256_setzero_ps,
        _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
        _mm512_cmp_ps_mask, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_maskz_mov_ps, _mm512_max_ps,
        _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use super::Vector;

    /// AVX2 with FMA.
    #[derive(Clone, Copy)]
    pub(in crate::kernels) struct Avx2;

    /// AVX-512.
    #[derive(Clone, Copy)]
    pub(in crate::kernels) struct Avx512;

    macro_rules! vector {
        ($kind:ty, $lanes:literal, $value:ty, $splat:ident, $load:ident, $store:ident, $fma:ident, $($more:item),* $(,)?) => {
            impl Vector for $kind {
                const LANES: usize = $lanes;
                type Value = $value;

                #[inline(always)]
                unsafe fn splat(value: f32) -> $value {
                    // SAFETY: the caller promises the instructions.
                    unsafe { $splat(value) }
                }

                #[inline(always)]
                unsafe fn load(from: *const f32) -> $value {
                    // SAFETY: the caller promises the instructions and the elements.
                    unsafe { $load(from) }
                }

                #[inline(always)]
                unsafe fn store(value: $value, to: *mut f32) {
                    // SAFETY: the caller promises the instructions and the elements.
                    unsafe { $store(to, value) }
                }

                #[inline(always)]
                unsafe fn multiply_add(a: $value, b: $value, c: $value) -> $value {
                    // SAFETY: the caller promises the instructions.
                    unsafe { $fma(a, b, c) }
                }

                $($more)*
            }
        };
    }

    vector!(
        Avx2,
        8,
        __m256,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps,
        #[inline(always)]
        unsafe fn rectify(value: __m256) -> __m256 {
            // SAFETY: the caller promises the instructions. What is not a number stays so: then the
            // second operand is the result.
            unsafe { _mm256_max_ps(_mm256_setzero_ps(), value) }
        },
        #[inline(always)]
        unsafe fn where_not_zero(value: __m256, by: __m256) -> __m256 {
            // SAFETY: the caller promises the instructions.
            unsafe { _mm256_and_ps(value, _mm256_cmp_ps::<_CMP_NEQ_UQ>(by, _mm256_setzero_ps())) }
        },
        #[inline(always)]
        unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
            // SAFETY: the caller promises the instructions and both squares.
            unsafe {
                let row: [__m256; 8] =
                    std::array::from_fn(|row| _mm256_loadu_ps(from.add(row * stride)));
                // Pairs of rows, then of pairs, then of halves.
                let low: [__m256; 4] =
                    std::array::from_fn(|at| _mm256_unpacklo_ps(row[2 * at], row[2 * at + 1]));
                let high: [__m256; 4] =
                    std::array::from_fn(|at| _mm256_unpackhi_ps(row[2 * at], row[2 * at + 1]));
                let quarters = |half: usize| {
                    let (low, high) = (&low[2 * half..], &high[2 * half..]);
                    [
                        _mm256_shuffle_ps::<0x44>(low[0], low[1]),
                        _mm256_shuffle_ps::<0xEE>(low[0], low[1]),
                        _mm256_shuffle_ps::<0x44>(high[0], high[1]),
                        _mm256_shuffle_ps::<0xEE>(high[0], high[1]),
                    ]
                };
                let (above, below) = (quarters(0), quarters(1));
                for at in 0..4 {
                    let first = _mm256_permute2f128_ps::<0x20>(above[at], below[at]);
                    let second = _mm256_permute2f128_ps::<0x31>(above[at], below[at]);
                    _mm256_storeu_ps(to.add(at * to_stride), first);
                    _mm256_storeu_ps(to.add((at + 4) * to_stride), second);
                }
            }
        }
    );
    vector!(
        Avx512,
        16,
        __m512,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps,
        #[inline(always)]
        unsafe fn rectify(value: __m512) -> __m512 {
            // SAFETY: the caller promises the instructions. What is not a number stays so: then the
            // second operand is the result.
            unsafe { _mm512_max_ps(_mm512_setzero_ps(), value) }
        },
        #[inline(always)]
        unsafe fn where_not_zero(value: __m512, by: __m512) -> __m512 {
            // SAFETY: the caller promises the instructions.
            unsafe {
                let kept = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(by, _mm512_setzero_ps());
                _mm512_maskz_mov_ps(kept, value)
            }
        },
        #[inline(always)]
        unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
            // Quarter by quarter.
            for row in [0, Avx2::LANES] {
                for column in [0, Avx2::LANES] {
                    // SAFETY: the caller promises the instructions, which AVX2's are among, and both
                    // squares.
                    unsafe {
                        let from = from.add(row * stride + column);
                        Avx2::transpose(from, stride, to.add(column * to_stride + row), to_stride);
                    }
                }
            }
        }
    );
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

/// A kind of vector that processors may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Width {
    /// The widest that this processor has.
    pub(super) fn of_processor() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f") {
                return Width::Avx512;
            }
            if std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("fma")
            {
                return Width::Avx2;
            }
        }
        Width::Portable
    }
}

/// Whether this is a processor with AVX-512 of AMD's family 19h, which is Zen 4: a multiply-add of 16
/// lanes takes it as long as two of 8 lanes (AMD 2023, "Software Optimization Guide for the AMD Zen4
/// Microarchitecture").
#[cfg(target_arch = "x86_64")]
pub(super) fn is_zen4() -> bool {
    use std::arch::x86_64::__cpuid;
    let (vendor, version) = (__cpuid(0), __cpuid(1).eax);
    let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
    // The family is the sum of a field and of its extension.
    let family = (version >> 8 & 0xf) + (version >> 20 & 0xff);
    Width::of_processor() == Width::Avx512
        && name.as_flattened() == b"AuthenticAMD"
        && family == 0x19
}

/// `widest!(name(argument: Type, ...))` calls the inlined unsafe function
/// `name::<Kind, ROWS>(...)` for the widest kind of vector, with as many rows of two vectors as its
/// registers hold.
macro_rules! widest {
    ($name:ident($($argument:ident: $type:ty),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f")]
        fn with_avx512($($argument: $type),*) {
            // SAFETY: as of the call below.
            unsafe { $name::<$crate::kernels::vector::Avx512, 8>($($argument),*) }
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2($($argument: $type),*) {
            // SAFETY: as of the call below.
            unsafe { $name::<$crate::kernels::vector::Avx2, 4>($($argument),*) }
        }

        // SAFETY: the processor has the instructions; the rest is the function's own contract,
        // which the caller's safety comment argues.
        unsafe {
            match $crate::kernels::vector::Width::of_processor() {
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::vector::Width::Avx512 => with_avx512($($argument),*),
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::vector::Width::Avx2 => with_avx2($($argument),*),
                $crate::kernels::vector::Width::Portable => {
                    $name::<$crate::kernels::vector::Portable, 4>($($argument),*);
                }
            }
        }
    }};
}
