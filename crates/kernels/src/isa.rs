//! One loop, compiled for every instruction set.

/// Defines a function whose body is compiled for each [`Isa`](crate::Isa) and chosen at run time.
///
/// The function takes the instruction set as a first argument, before those that are written. The
/// body is plain Rust that the compiler vectorises; it has no fused multiply-add, so that every
/// instruction set gives the same bits. That does for loops over elements, which wait for the memory
/// or say nothing of registers; a kernel whose speed is in how it uses vectors is written over
/// [`Simd`](crate::simd::Simd).
macro_rules! vectorised {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$p:ident: $bound:path>)? ($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block
    ) => {
        $(#[$meta])*
        $vis fn $name$(<$p: $bound>)?(isa: $crate::Isa, $($arg: $type),*) $(-> $ret)? {
            #[inline(always)]
            fn body$(<$p: $bound>)?($($arg: $type),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
            fn avx512$(<$p: $bound>)?($($arg: $type),*) $(-> $ret)? {
                body$(::<$p>)?($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2$(<$p: $bound>)?($($arg: $type),*) $(-> $ret)? {
                body$(::<$p>)?($($arg),*)
            }

            match isa {
                // SAFETY: a `Cpu` is only made for an instruction set that the machine has.
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx512 => unsafe { avx512$(::<$p>)?($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx2 => unsafe { avx2$(::<$p>)?($($arg),*) },
                _ => body$(::<$p>)?($($arg),*),
            }
        }
    };
}

pub(crate) use vectorised;
