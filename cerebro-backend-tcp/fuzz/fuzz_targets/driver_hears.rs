//! See `cerebro_backend_tcp::fuzzing`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cerebro_backend_tcp::fuzzing::driver_hears(bytes));
