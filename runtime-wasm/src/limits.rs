//! What a guest may make the host allocate (security: a guest that grows without end ends alone).

use std::sync::Arc;

use wasmtime::ResourceLimiter;

use crate::memory::MemoryUse;
use crate::spec::ResourceLimits;

/// The guest asked for more linear memory than it may have.
#[derive(Debug, thiserror::Error)]
#[error("the guest needs {wanted} bytes of memory, and the limit is {limit}")]
pub(crate) struct OutOfMemory {
    wanted: u64,
    limit: u64,
}

/// Counts all linear memories of a container together: those of its store, or of all stores of a
/// server. A growth over the limit is an error and no
/// failed `memory.grow`: most guests answer that one with an abort, which would look like a bug of
/// theirs.
#[derive(Debug)]
pub(crate) struct Limits {
    limits: ResourceLimits,
    /// This store's part.
    memory_used: u64,
    /// All stores' together.
    container_used: Arc<MemoryUse>,
}

impl Limits {
    pub(crate) fn new(limits: ResourceLimits, container_used: Arc<MemoryUse>) -> Self {
        Self {
            limits,
            memory_used: 0,
            container_used,
        }
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.container_used.sub(self.memory_used);
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let added = u64::try_from(desired.saturating_sub(current)).unwrap_or(u64::MAX);
        let before = self.container_used.add(added);
        let wanted = before.saturating_add(added);
        match self.limits.memory_bytes {
            Some(limit) if wanted > limit => {
                self.container_used.sub(added);
                Err(OutOfMemory { wanted, limit }.into())
            }
            _ => {
                self.memory_used += added;
                Ok(true)
            }
        }
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let desired_elements = u64::try_from(desired).unwrap_or(u64::MAX);
        let fits = maximum.is_none_or(|maximum| desired <= maximum);
        Ok(fits && desired_elements <= self.limits.table_elements)
    }

    fn instances(&self) -> usize {
        count(self.limits.instances)
    }

    fn tables(&self) -> usize {
        count(self.limits.tables)
    }

    fn memories(&self) -> usize {
        count(self.limits.memories)
    }
}

fn count(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sharing(bytes: u64, used: &Arc<MemoryUse>) -> Limits {
        let limits = ResourceLimits {
            memory_bytes: Some(bytes),
            ..ResourceLimits::default()
        };
        Limits::new(limits, Arc::clone(used))
    }

    fn limited(bytes: u64) -> Limits {
        sharing(bytes, &Arc::default())
    }

    #[test]
    fn stores_of_a_server_share_the_limit_and_give_back() {
        let used = Arc::default();
        let (mut one, mut other) = (sharing(3 << 16, &used), sharing(3 << 16, &used));
        assert!(one.memory_growing(0, 2 << 16, None).unwrap());
        assert!(other.memory_growing(0, 2 << 16, None).is_err());
        assert!(other.memory_growing(0, 1 << 16, None).unwrap());
        drop(one);
        assert!(other.memory_growing(1 << 16, 3 << 16, None).unwrap());
        drop(other);
        assert_eq!(used.get(), 0);
    }

    #[test]
    fn memories_together_over_the_limit_are_out_of_memory() {
        let mut limits = limited(3 << 16);
        assert!(limits.memory_growing(0, 2 << 16, None).unwrap());
        assert!(limits.memory_growing(0, 1 << 16, None).unwrap());
        let error = limits.memory_growing(1 << 16, 2 << 16, None).unwrap_err();
        assert!(error.downcast_ref::<OutOfMemory>().is_some());
    }

    #[test]
    fn growth_over_the_module_s_own_maximum_fails_in_the_guest() {
        let mut limits = limited(1 << 16);
        assert!(!limits.memory_growing(0, 2 << 16, Some(1 << 16)).unwrap());
    }
}
