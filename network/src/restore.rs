//! The table is made anew: by the first container after a boot, and after somebody flushed all
//! rules. What belongs in it is in the records: networks, and the ports of live containers.

use std::fs;

use state::{Layout, read_record};

use crate::firewall::Firewall;
use crate::lease::is_alive;
use crate::live::NetworkState;
use crate::record::{Driver, NetworkConfig};
use crate::store::{self, Networks};
use crate::{NetworkError, STATE_FILE, bridge};

/// Makes the table with everything that belongs in it. The caller holds the lock of all networks.
pub(crate) fn all(
    layout: &Layout,
    firewall: &Firewall,
    networks: &[NetworkConfig],
) -> Result<(), NetworkError> {
    firewall.create()?;
    let netlink = bridge::open()?;
    for config in networks.iter().filter(|c| c.driver == Driver::Bridge) {
        if netlink.link_index(&config.bridge_link()).is_ok() {
            firewall.add_network(config)?;
        }
    }
    let containers = layout.run().join("containers");
    for entry in fs::read_dir(&containers).into_iter().flatten().flatten() {
        let Ok(state) = read_record::<NetworkState>(&entry.path().join(STATE_FILE)) else {
            continue;
        };
        let name = entry.file_name();
        if name.to_str().is_some_and(|id| is_alive(layout, id)) {
            // Its monitor may publish them in this moment.
            drop(firewall.publish(&state.mappings()));
        }
    }
    Ok(())
}

/// Makes the table when it is gone.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn if_gone(layout: &Layout, firewall: &Firewall) -> Result<(), NetworkError> {
    if firewall.is_up()? {
        return Ok(());
    }
    let _lock = store::lock(layout)?;
    if firewall.is_up()? {
        return Ok(());
    }
    let networks = Networks::new(layout.clone()).recorded()?;
    all(layout, firewall, &networks)
}
