//! `cerebro-worker certificates`: the authority of a cluster, and what it issues.

use std::error::Error;

use cerebro_backend_tcp::Authority;

use crate::arguments::Wanted;

/// Makes what is not there yet, and says what is where.
pub(crate) fn issue(wanted: &Wanted) -> Result<(), Box<dyn Error>> {
    let home = wanted.folder.join("authority");
    let authority = if home.join("authority-key.pem").exists() {
        println!("{}: the authority that is there", home.display());
        Authority::open(&home)?
    } else {
        println!("{}: a new authority; it stays here", home.display());
        Authority::create(&home)?
    };
    let driver = wanted.folder.join("driver");
    if driver.exists() {
        println!("{}: is there already", driver.display());
    } else {
        authority.issue_driver(wanted.validity, &driver)?;
        println!("{}: for the driver's machine", driver.display());
    }
    for name in &wanted.workers {
        let folder = wanted.folder.join(name);
        if folder.exists() {
            println!("{}: is there already; delete it to have a new one", folder.display());
        } else {
            authority.issue_worker(name, wanted.validity, &folder)?;
            println!("{}: for the worker `{name}`", folder.display());
        }
    }
    Ok(())
}
