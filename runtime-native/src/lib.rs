//! runtime-native
