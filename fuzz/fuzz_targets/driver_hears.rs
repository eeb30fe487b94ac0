//! What a registered worker says to its driver: the driver neither panics nor ends what another worker
//! runs, whatever it is.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cerebro_backend_tcp::fuzzing::driver_hears(bytes));
