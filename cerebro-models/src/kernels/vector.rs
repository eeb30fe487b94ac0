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
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps,
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps,
    };

    use super::Vector;

    /// AVX2 with FMA.
    #[derive(Clone, Copy)]
    pub(in crate::kernels) struct Avx2;

    /// AVX-512.
    #[derive(Clone, Copy)]
    pub(in crate::kernels) struct Avx512;

    macro_rules! vector {
        ($kind:ty, $lanes:literal, $value:ty, $splat:ident, $load:ident, $store:ident, $fma:ident) => {
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
            }
        };
    }

    vector!(Avx2, 8, __m256, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps);
    vector!(Avx512, 16, __m512, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps);
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
