//! `wasi:keyvalue`: buckets of values in the wasm host's memory, for as long as the container runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource, ResourceType};
use wasmtime_wasi::WasiView;

use crate::link::Guest;

/// Bytes of keys and values in all buckets of a container.
const MAX_BYTES: usize = 16 << 20;

/// Keys that one call lists.
const PAGE: usize = 1_000;

/// What the guest is told.
#[derive(Debug, ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct KeyResponse {
    keys: Vec<String>,
    cursor: Option<u64>,
}

/// The buckets of a container. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store(Arc<Mutex<Buckets>>);

#[derive(Debug, Default)]
struct Buckets {
    bytes: usize,
    values: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Buckets> {
        // A panic leaves a map that is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buckets {
    fn bucket(&self, name: &str) -> Option<&BTreeMap<String, Vec<u8>>> {
        self.values.get(name)
    }

    fn get(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        self.bucket(bucket)?.get(key).cloned()
    }

    fn set(&mut self, bucket: &str, key: String, value: Vec<u8>) -> Result<(), Error> {
        let old = self.bucket(bucket).and_then(|values| values.get(&key));
        let old = old.map_or(0, |old| old.len() + key.len());
        let bytes = self.bytes - old + key.len() + value.len();
        if bytes > MAX_BYTES {
            let text = format!("the store is full ({} MiB)", MAX_BYTES >> 20);
            return Err(Error::Other(text));
        }
        self.bytes = bytes;
        let values = self.values.entry(bucket.to_owned()).or_default();
        values.insert(key, value);
        Ok(())
    }

    fn delete(&mut self, bucket: &str, key: &str) {
        let old = self
            .values
            .get_mut(bucket)
            .and_then(|values| values.remove(key));
        if let Some(old) = old {
            self.bytes -= old.len() + key.len();
        }
    }

    fn keys(&self, bucket: &str, cursor: Option<u64>) -> KeyResponse {
        let first = usize::try_from(cursor.unwrap_or(0)).unwrap_or(usize::MAX);
        let all = self.bucket(bucket).into_iter().flat_map(BTreeMap::keys);
        let mut keys: Vec<String> = all.skip(first).take(PAGE + 1).cloned().collect();
        let more = keys.len() > PAGE;
        keys.truncate(PAGE);
        let next = u64::try_from(first.saturating_add(PAGE)).ok();
        KeyResponse {
            keys,
            cursor: next.filter(|_| more),
        }
    }

    fn increment(&mut self, bucket: &str, key: String, delta: i64) -> Result<i64, Error> {
        let old = match self.get(bucket, &key) {
            None => 0,
            Some(bytes) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .ok_or_else(|| Error::Other(format!("`{key}` is no number")))?,
        };
        let new = old
            .checked_add(delta)
            .ok_or_else(|| Error::Other(format!("`{key}` would be too large")))?;
        self.set(bucket, key, new.to_string().into_bytes())?;
        Ok(new)
    }
}

/// A bucket that a guest has opened: its name.
struct Bucket(String);

type Context<'a> = StoreContextMut<'a, Guest>;

/// The name behind a guest's handle, and the buckets.
fn opened(store: &mut Context<'_>, bucket: &Resource<Bucket>) -> wasmtime::Result<(String, Store)> {
    let name = store.data_mut().ctx().table.get(bucket)?.0.clone();
    Ok((name, store.data().interfaces.keyvalue.clone()))
}

pub(super) fn define_store(linker: &mut Linker<Guest>, import: &str) -> wasmtime::Result<()> {
    let mut interface = linker.instance(import)?;
    interface.resource("bucket", ResourceType::host::<Bucket>(), |mut store, id| {
        let bucket = Resource::<Bucket>::new_own(id);
        store.data_mut().ctx().table.delete(bucket)?;
        Ok(())
    })?;
    interface.func_wrap("open", |mut store: Context<'_>, (name,): (String,)| {
        let bucket = store.data_mut().ctx().table.push(Bucket(name))?;
        Ok((Ok::<_, Error>(bucket),))
    })?;
    interface.func_wrap(
        "[method]bucket.get",
        |mut store: Context<'_>, (bucket, key): (Resource<Bucket>, String)| {
            let (name, buckets) = opened(&mut store, &bucket)?;
            let found = buckets.lock().get(&name, &key);
            Ok((Ok::<_, Error>(found),))
        },
    )?;
    interface.func_wrap(
        "[method]bucket.set",
        |mut store: Context<'_>, (bucket, key, value): (Resource<Bucket>, String, Vec<u8>)| {
            let (name, buckets) = opened(&mut store, &bucket)?;
            let set = buckets.lock().set(&name, key, value);
            Ok((set,))
        },
    )?;
    interface.func_wrap(
        "[method]bucket.delete",
        |mut store: Context<'_>, (bucket, key): (Resource<Bucket>, String)| {
            let (name, buckets) = opened(&mut store, &bucket)?;
            buckets.lock().delete(&name, &key);
            Ok((Ok::<(), Error>(()),))
        },
    )?;
    interface.func_wrap(
        "[method]bucket.exists",
        |mut store: Context<'_>, (bucket, key): (Resource<Bucket>, String)| {
            let (name, buckets) = opened(&mut store, &bucket)?;
            let found = buckets.lock().get(&name, &key).is_some();
            Ok((Ok::<_, Error>(found),))
        },
    )?;
    interface.func_wrap(
        "[method]bucket.list-keys",
        |mut store: Context<'_>, (bucket, cursor): (Resource<Bucket>, Option<u64>)| {
            let (name, buckets) = opened(&mut store, &bucket)?;
            let keys = buckets.lock().keys(&name, cursor);
            Ok((Ok::<_, Error>(keys),))
        },
    )?;
    Ok(())
}

pub(super) fn define_atomics(linker: &mut Linker<Guest>, import: &str) -> wasmtime::Result<()> {
    linker.instance(import)?.func_wrap(
        "increment",
        |mut store: Context<'_>, (bucket, key, delta): (Resource<Bucket>, String, i64)| {
            let (name, buckets) = opened(&mut store, &bucket)?;
            let new = buckets.lock().increment(&name, key, delta);
            Ok((new,))
        },
    )?;
    Ok(())
}

pub(super) fn define_batch(linker: &mut Linker<Guest>, import: &str) -> wasmtime::Result<()> {
    type Pairs = Vec<(String, Vec<u8>)>;
    let mut interface = linker.instance(import)?;
    interface.func_wrap(
        "get-many",
        |mut store: Context<'_>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
            let (name, buckets) = opened(&mut store, &bucket)?;
            let buckets = buckets.lock();
            let found = keys.into_iter().map(|key| {
                let value = buckets.get(&name, &key)?;
                Some((key, value))
            });
            let found: Vec<Option<(String, Vec<u8>)>> = found.collect();
            Ok((Ok::<_, Error>(found),))
        },
    )?;
    interface.func_wrap(
        "set-many",
        |mut store: Context<'_>, (bucket, pairs): (Resource<Bucket>, Pairs)| {
            let (name, buckets) = opened(&mut store, &bucket)?;
            let mut buckets = buckets.lock();
            let mut pairs = pairs.into_iter();
            Ok((pairs.try_for_each(|(key, value)| buckets.set(&name, key, value)),))
        },
    )?;
    interface.func_wrap(
        "delete-many",
        |mut store: Context<'_>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
            let (name, buckets) = opened(&mut store, &bucket)?;
            let mut buckets = buckets.lock();
            for key in &keys {
                buckets.delete(&name, key);
            }
            Ok((Ok::<(), Error>(()),))
        },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_that_is_full_refuses_and_counts_what_is_deleted() {
        let store = Store::default();
        let mut buckets = store.lock();
        let half = vec![0_u8; MAX_BYTES / 2];
        buckets.set("a", "one".to_owned(), half.clone()).unwrap();
        assert!(buckets.set("b", "two".to_owned(), half.clone()).is_err());
        buckets.set("a", "one".to_owned(), Vec::new()).unwrap();
        buckets.set("b", "two".to_owned(), half).unwrap();
        buckets.delete("a", "one");
        buckets.delete("b", "two");
        assert_eq!(buckets.bytes, 0);
    }

    #[test]
    fn keys_come_in_pages() {
        let store = Store::default();
        let mut buckets = store.lock();
        for number in 0..PAGE + 5 {
            buckets
                .set("a", format!("{number:05}"), Vec::new())
                .unwrap();
        }
        let first = buckets.keys("a", None);
        assert_eq!(first.keys.len(), PAGE);
        let second = buckets.keys("a", first.cursor);
        assert_eq!((second.keys.len(), second.cursor), (5, None));
    }

    #[test]
    fn increment_of_what_is_no_number_is_refused() {
        let store = Store::default();
        let mut buckets = store.lock();
        assert_eq!(buckets.increment("a", "n".to_owned(), 5).unwrap(), 5);
        assert_eq!(buckets.increment("a", "n".to_owned(), -7).unwrap(), -2);
        buckets.set("a", "t".to_owned(), b"text".to_vec()).unwrap();
        assert!(buckets.increment("a", "t".to_owned(), 1).is_err());
    }
}
