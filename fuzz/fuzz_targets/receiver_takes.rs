//! What a holder sends to somebody who wants a State: it ends in an error or in a State of no more bytes
//! than are allowed.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cerebro_backend_tcp::fuzzing::receiver_takes(bytes));
