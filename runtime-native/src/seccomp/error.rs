//! Why a seccomp profile was refused.

/// Why a seccomp profile cannot become a filter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeccompError {
    /// The profile is not JSON, or a field has the wrong type.
    #[error("cannot parse the seccomp profile")]
    Parse(#[source] serde_json::Error),
    /// The profile is larger than any that could fit into a filter.
    #[error("the seccomp profile has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A field of the profile itself has a value that means nothing.
    #[error("seccomp profile: `{field}` {problem}")]
    Profile {
        /// The field's path, such as `defaultErrnoRet`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A field of one rule has a value that means nothing.
    #[error("seccomp rule `syscalls[{rule}]` ({calls}): `{field}` {problem}")]
    Rule {
        /// The rule's place in `syscalls`, from 0.
        rule: usize,
        /// Its first call, and how many more it names.
        calls: String,
        /// The field's path in the rule, such as `args[1].index`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The filter is longer than the kernel takes.
    #[error(
        "the seccomp filter has {instructions} instructions, more than the kernel's limit of {limit}"
    )]
    TooLong {
        /// Its length.
        instructions: usize,
        /// `BPF_MAXINSNS`.
        limit: usize,
    },
}

/// Which rule a message is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct RulePlace<'a> {
    pub(super) index: usize,
    pub(super) names: &'a [String],
}

impl RulePlace<'_> {
    /// The error that `field` of this rule causes.
    pub(super) fn refuse(
        self,
        field: impl Into<String>,
        problem: impl Into<String>,
    ) -> SeccompError {
        let calls = match self.names {
            [] => "no call".to_owned(),
            [only] => format!("`{only}`"),
            [first, others @ ..] => format!("`{first}` and {} more", others.len()),
        };
        SeccompError::Rule {
            rule: self.index,
            calls,
            field: field.into(),
            problem: problem.into(),
        }
    }
}
