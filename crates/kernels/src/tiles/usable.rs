//! Whether this process may use the matrix unit.

use std::sync::OnceLock;

/// Whether the processor has the unit and the system lets this process use it: asked for once.
pub(crate) fn is_usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| machine().is_usable(permission))
}

/// What the processor says of itself.
#[derive(Debug, Clone, Copy)]
struct Machine {
    /// Register `ecx` of CPUID leaf 1.
    leaf1_ecx: u32,
    /// Register `edx` of CPUID leaf 7, or zeros where it has none.
    leaf7_edx: u32,
    /// The states that the system saves, or zeros where it says nothing of them.
    xcr0: u64,
}

impl Machine {
    const OSXSAVE: u32 = 1 << 27;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    /// The configuration of tiles and their contents.
    const TILE_STATE: u64 = 1 << 17 | 1 << 18;

    /// Whether the unit is there and saved, and `permission`, which is asked for last, is given (0).
    fn is_usable(self, permission: impl FnOnce() -> i64) -> bool {
        let has = |word: u32, bits: u32| word & bits == bits;
        has(self.leaf1_ecx, Self::OSXSAVE)
            && has(self.leaf7_edx, Self::AMX_BF16 | Self::AMX_TILE)
            && self.xcr0 & Self::TILE_STATE == Self::TILE_STATE
            && permission() == 0
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[allow(unused_unsafe, reason = "newer compilers call CPUID safe")]
fn machine() -> Machine {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    // SAFETY: every processor of 64 bits has CPUID; XGETBV is there where OSXSAVE is set.
    unsafe {
        let leaf1_ecx = __cpuid(1).ecx;
        let leaf7_edx = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).edx } else { 0 };
        let xcr0 = if leaf1_ecx & Machine::OSXSAVE != 0 { _xgetbv(0) } else { 0 };
        Machine { leaf1_ecx, leaf7_edx, xcr0 }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn machine() -> Machine {
    Machine { leaf1_ecx: 0, leaf7_edx: 0, xcr0: 0 }
}

/// Asks Linux for the registers of tiles, which it gives a process only on demand: 0 if it does.
///
/// It refuses while a thread has an alternate signal stack too small for them. Those that Rust's threads have
/// are as large as the kernel asks for (`AT_MINSIGSTKSZ`).
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn permission() -> i64 {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call reads two numbers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn permission() -> i64 {
    -1
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Machine = Machine {
        leaf1_ecx: Machine::OSXSAVE,
        leaf7_edx: Machine::AMX_BF16 | Machine::AMX_TILE,
        xcr0: Machine::TILE_STATE | 7,
    };

    #[test]
    fn all_of_it_is_usable() {
        assert!(WHOLE.is_usable(|| 0));
        let all = Machine { leaf1_ecx: u32::MAX, leaf7_edx: u32::MAX, xcr0: u64::MAX };
        assert!(all.is_usable(|| 0));
    }

    #[test]
    fn whatever_is_missing_the_unit_is_not_used() {
        let never = || panic!("a unit that is not there is not asked for");
        assert!(!Machine { leaf1_ecx: 0, ..WHOLE }.is_usable(never));
        for bits in [0, Machine::AMX_BF16, Machine::AMX_TILE, !Machine::AMX_TILE] {
            assert!(!Machine { leaf7_edx: bits, ..WHOLE }.is_usable(never));
        }
        for states in [0, 7, 1 << 17, 1 << 18, !(1 << 17), !(1 << 18)] {
            assert!(!Machine { xcr0: states, ..WHOLE }.is_usable(never));
        }
        for refusal in [-1, -28, 1] {
            assert!(!WHOLE.is_usable(|| refusal));
        }
    }

    #[test]
    fn the_answer_stays_what_it_is() {
        assert_eq!(is_usable(), is_usable());
    }
}
