//! What changes inputs of the targets that read archives.

use ketch_fuzz::seeds;

/// The mutator's part that knows archives: begins with a seed, and signs three changes of four.
pub(crate) fn change(
    seeds: &[Vec<u8>],
    data: &mut [u8],
    size: usize,
    seed: u32,
    mutate: impl FnOnce(&mut [u8]) -> usize,
) -> usize {
    let start = &seeds[seed as usize % seeds.len()];
    if size < 512 && start.len() <= data.len() {
        data[..start.len()].copy_from_slice(start);
        return start.len();
    }
    let size = mutate(data);
    if !seed.is_multiple_of(4) {
        seeds::sign(&mut data[..size]);
    }
    size
}
