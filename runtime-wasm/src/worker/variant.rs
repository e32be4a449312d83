//! In which form a module is compiled, as one word of the worker's command line.

use serde::{Deserialize, Serialize};

use crate::engine::{Profile, Serving};
use crate::spec::Metering;

/// What is compiled into the code besides the module's own. With what the module turns out to be,
/// it makes the [`Profile`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// The guest's work is counted.
    pub fuel: bool,
    /// The same input gives the same output.
    pub deterministic: bool,
}

impl From<Metering> for Variant {
    fn from(metering: Metering) -> Self {
        Self {
            fuel: metering.fuel.is_some(),
            deterministic: metering.deterministic,
        }
    }
}

impl Variant {
    const ALL: [(&'static str, Self); 4] = [
        ("plain", Self::new(false, false)),
        ("fuel", Self::new(true, false)),
        ("deterministic", Self::new(false, true)),
        ("fuel-deterministic", Self::new(true, true)),
    ];

    const fn new(fuel: bool, deterministic: bool) -> Self {
        Self {
            fuel,
            deterministic,
        }
    }

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, variant)| *variant == self);
        found.map_or("plain", |(name, _)| name)
    }

    /// The variant of a word.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, variant)| *variant)
    }

    /// The profile of a program that is run as `serving`.
    #[must_use]
    pub fn profile(self, serving: Serving) -> Profile {
        Profile {
            serving,
            fuel: self.fuel,
            deterministic: self.deterministic,
        }
    }
}
