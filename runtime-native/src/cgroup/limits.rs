//! The writes that give a group its limits, collected controller by controller.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use runtime::CgroupWrite;

use super::controller;
use super::group::Group;
use super::hierarchy::{Hierarchy, ROOT};
use crate::plan::{PlanError, c_string};

/// Collects one group's writes.
#[derive(Debug)]
pub(super) struct Limits<'a> {
    group: &'a Group,
    /// The controllers of v2 that this group can have.
    available: Vec<String>,
    writes: Vec<CgroupWrite>,
    device_filter: Vec<u8>,
    state: GroupState,
}

/// Whether the group is there already, with limits that the order of new ones depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupState {
    /// As far as it exists.
    Now,
    /// It is made anew before the limits are written.
    New,
}

/// What [`Limits`] has collected.
#[derive(Debug)]
pub(super) struct Collected {
    /// In this order.
    pub(super) writes: Vec<CgroupWrite>,
    /// A program for the group's device filter; empty without one.
    pub(super) device_filter: Vec<u8>,
}

/// The writes for all of `resources`.
pub(super) fn collect(group: &Group, resources: &LinuxResources) -> Result<Collected, PlanError> {
    collect_for(group, resources, GroupState::Now)
}

/// The same for a group in a certain state.
pub(super) fn collect_for(
    group: &Group,
    resources: &LinuxResources,
    state: GroupState,
) -> Result<Collected, PlanError> {
    let mut limits = Limits {
        state,
        ..Limits::new(group)
    };
    let steps = match group.hierarchy() {
        Hierarchy::None => &[controller::refuse as controller::Step][..],
        Hierarchy::Unified { .. } => &controller::UNIFIED,
        Hierarchy::Legacy { .. } => &controller::LEGACY,
    };
    for step in steps {
        step(resources, &mut limits)?;
    }
    Ok(Collected {
        writes: limits.writes,
        device_filter: limits.device_filter,
    })
}

impl<'a> Limits<'a> {
    pub(super) fn new(group: &'a Group) -> Self {
        let available = match group.hierarchy() {
            Hierarchy::Unified { base } => available(base),
            Hierarchy::None | Hierarchy::Legacy { .. } => Vec::new(),
        };
        Self {
            group,
            available,
            writes: Vec::new(),
            device_filter: Vec::new(),
            state: GroupState::Now,
        }
    }

    /// Writes `value` to the group's `file`, whose name begins with its controller's.
    ///
    /// # Errors
    /// When this host has no such controller.
    pub(super) fn set(
        &mut self,
        file: &str,
        value: impl Display,
        option: &str,
    ) -> Result<(), PlanError> {
        let write = self.write(file, value.to_string(), option)?;
        self.writes.push(write);
        Ok(())
    }

    /// As [`Limits::set`], with another file and value where the first file does not exist.
    ///
    /// # Errors
    /// As [`Limits::set`].
    pub(super) fn set_first(
        &mut self,
        choices: [(&str, String); 2],
        option: &str,
    ) -> Result<(), PlanError> {
        let [(file, value), (second_file, second_value)] = choices;
        let mut write = self.write(file, value, option)?;
        write.otherwise = Some(Box::new(self.write(second_file, second_value, option)?));
        self.writes.push(write);
        Ok(())
    }

    fn write(&self, file: &str, value: String, option: &str) -> Result<CgroupWrite, PlanError> {
        let controller = file.split('.').next().unwrap_or(file);
        let path = self
            .has_controller(controller)
            .then(|| self.group.file(file))
            .flatten()
            .ok_or_else(|| missing(controller, option))?;
        Ok(CgroupWrite {
            path: c_string(&path.to_string_lossy())?,
            value,
            option: option.to_owned(),
            otherwise: None,
        })
    }

    /// Attaches a device filter to the group.
    pub(super) fn set_device_filter(&mut self, program: Vec<u8>) {
        self.device_filter = program;
    }

    /// Whether the group has this controller.
    pub(super) fn has_controller(&self, controller: &str) -> bool {
        match self.group.hierarchy() {
            Hierarchy::None => false,
            Hierarchy::Unified { .. } => {
                controller == "cgroup" || self.available.iter().any(|name| name == controller)
            }
            Hierarchy::Legacy { .. } => self.group.dir(controller).is_some(),
        }
    }

    /// Whether a device filter can be attached.
    pub(super) fn has_unified(&self) -> bool {
        self.group.unified_dir().is_some()
    }

    /// What the group's file holds now; none while there is no such group.
    pub(super) fn current(&self, file: &str) -> Option<String> {
        if self.state == GroupState::New {
            return None;
        }
        let text = fs::read_to_string(self.group.file(file)?).ok()?;
        Some(text.trim().to_owned())
    }

    /// Whether groups of this host have this file, which depends on how the kernel was started.
    /// The root may have less than what is below it, so a group beside ours will do.
    pub(super) fn is_known(&self, file: &str) -> bool {
        let Some(path) = self.group.file(file) else {
            return false;
        };
        let root = self.hierarchy_root(file);
        path.exists()
            || root.join(file).exists()
            || super::group::children(&root).any(|group| group.join(file).exists())
    }

    fn hierarchy_root(&self, file: &str) -> PathBuf {
        let controller = file.split('.').next().unwrap_or(file);
        match self.group.hierarchy().legacy_dir(controller) {
            Some(name) => Path::new(ROOT).join(name),
            None => PathBuf::from(ROOT),
        }
    }
}

/// The controllers that a v2 group offers to the groups below it.
pub(super) fn available(base: &str) -> Vec<String> {
    let file = format!("{ROOT}{base}/cgroup.controllers");
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// An option whose controller is not there.
pub(super) fn missing(controller: &str, option: &str) -> PlanError {
    PlanError::Unavailable {
        option: option.to_owned(),
        why: format!("this host has no `{controller}` controller"),
    }
}

/// An option that one version of control groups has no counterpart for.
pub(super) fn not_in(version: &str, option: &str) -> PlanError {
    PlanError::Unavailable {
        option: option.to_owned(),
        why: format!("{version} has nothing like it"),
    }
}
