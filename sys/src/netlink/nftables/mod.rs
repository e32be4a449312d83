//! nftables: tables, chains, sets, maps, elements and rules (`linux/netfilter/nf_tables.h`). A rule
//! is a list of [`Expression`]s that load registers, compare and decide.

mod rule;
mod table;

pub use rule::{
    Connection, Expression, Field, Meta, Register, STATUS_TRANSLATED, Verdict, connection_state,
};
pub use table::{
    ChainType, Element, Family, Hook, KeyType, Place, Present, Set, Table, key, link_name,
};
