//! The compact form of a profile that the compiler works on.

use super::arch::Arch;

/// The value a filter returns: an action and its 16 bits of data (seccomp(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Action(pub(super) u32);

impl Action {
    /// Ends the thread. Also the answer to an architecture that the profile does not list.
    pub(super) const KILL_THREAD: Self = Self(0);
    pub(super) const KILL_PROCESS: Self = Self(0x8000_0000);
    pub(super) const TRAP: Self = Self(0x0003_0000);
    pub(super) const NOTIFY: Self = Self(0x7fc0_0000);
    pub(super) const LOG: Self = Self(0x7ffc_0000);
    pub(super) const ALLOW: Self = Self(0x7fff_0000);
    /// What a kernel answers to a call that it does not have, so that libraries fall back.
    pub(super) const ENOSYS: Self = Self::errno(38);

    pub(super) const fn errno(number: u16) -> Self {
        Self(0x0005_0000 | number as u32)
    }

    pub(super) const fn trace(message: u16) -> Self {
        Self(0x7ff0_0000 | message as u32)
    }

    /// Whether a call with this action may be carried out. A tracer counts: it answers for
    /// calls that the kernel lacks.
    pub(super) const fn permits(self) -> bool {
        matches!(
            self.0 & 0xffff_0000,
            0x7fff_0000 | 0x7ffc_0000 | 0x7ff0_0000
        )
    }
}

/// A test of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) argument: u8,
    pub(super) test: Test,
}

/// What an argument is compared with; unsigned, 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    /// The bits under `mask` are those of `value`.
    MaskedEqual {
        mask: u64,
        value: u64,
    },
}

/// What happens to one call when all conditions hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule<'a> {
    /// The call's row in the table.
    pub(super) row: u16,
    pub(super) action: Action,
    pub(super) conditions: &'a [Condition],
}

/// A whole profile.
///
/// For one call the first rule without conditions wins over all others; without such a rule the
/// first whose conditions hold decides, and else the default action.
#[derive(Debug)]
pub(super) struct Policy<'a> {
    pub(super) default: Action,
    /// Whether numbers above the largest that a rule names get [`Action::ENOSYS`].
    pub(super) newer_calls: NewerCalls,
    /// Without duplicates, the native one first.
    pub(super) arches: &'a [Arch],
    pub(super) rules: Vec<Rule<'a>>,
}

/// What a call gets that is newer than any which the profile names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NewerCalls {
    /// The default action.
    Default,
    /// `ENOSYS`, which a C library takes as "use the older call". `EPERM` would be an error.
    NotImplemented,
}
