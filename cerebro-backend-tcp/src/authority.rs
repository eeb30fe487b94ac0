//! [`Authority`]: makes the certificates of a cluster.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use thiserror::Error;

use crate::security::{DRIVER, WORKER};

/// The certificate authority of one cluster, in a folder that only its owner should read.
///
/// It is made once. Every process of the cluster gets a folder with three files: the authority's
/// certificate, a certificate of its own and its key, which [`Certificates::read`] reads. A
/// driver's certificate lets nobody pass for a worker, nor a worker's for the driver.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?; let folder = folder.path();
/// use cerebro_backend_tcp::{Authority, Certificates, Security};
/// let authority = Authority::create(&folder.join("authority"))?;
/// let year = std::time::Duration::from_hours(365 * 24);
/// authority.issue_driver(year, &folder.join("driver"))?;
/// authority.issue_worker("rack1-node3", year, &folder.join("rack1-node3"))?;
/// let security = Security::MutualTls(Certificates::read(folder.join("driver"))?);
/// # Ok(()) }
/// ```
///
/// [`Certificates::read`]: crate::Certificates::read
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Why an authority or a certificate could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// A key or a certificate.
    #[error("making a certificate in {}: {source}", folder.display())]
    Certificate {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        source: rcgen::Error,
    },
}

impl Authority {
    /// Makes an authority in `folder`, which must not have one.
    pub fn create(folder: &Path) -> Result<Self, AuthorityError> {
        let failed = |source| AuthorityError::Certificate { folder: folder.to_owned(), source };
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Cerebro cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        write(folder, "authority-key.pem", &key.serialize_pem())?;
        write(folder, "authority.pem", &certificate)?;
        Ok(Self { folder: folder.to_owned(), certificate, issuer: Issuer::new(params, key) })
    }

    /// The authority that was made in `folder`.
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let failed = |source| AuthorityError::Certificate { folder: folder.to_owned(), source };
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|source| AuthorityError::File { path, source })
        };
        let key = KeyPair::from_pem(&read("authority-key.pem")?).map_err(failed)?;
        let certificate = read("authority.pem")?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Cerebro cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Ok(Self { folder: folder.to_owned(), certificate, issuer: Issuer::new(params, key) })
    }

    /// Makes a driver's certificate and key in `folder`; it can be used for the time of `validity`.
    pub fn issue_driver(&self, validity: Duration, folder: &Path) -> Result<(), AuthorityError> {
        self.issue(&[DRIVER.to_owned()], validity, folder)
    }

    /// Makes the certificate and the key of the worker `name` in `folder`. The name is one that
    /// could be part of a host's: letters, digits, hyphens.
    pub fn issue_worker(
        &self,
        name: &str,
        validity: Duration,
        folder: &Path,
    ) -> Result<(), AuthorityError> {
        self.issue(&[WORKER.to_owned(), format!("{name}.{WORKER}")], validity, folder)
    }

    fn issue(
        &self,
        names: &[String],
        validity: Duration,
        folder: &Path,
    ) -> Result<(), AuthorityError> {
        let failed = |source| AuthorityError::Certificate { folder: self.folder.clone(), source };
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params.distinguished_name = named(names.last().map_or("", String::as_str));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = SystemTime::now();
        // Clocks of a cluster need not agree to the second.
        params.not_before = (now - Duration::from_hours(1)).into();
        params.not_after = (now + validity).into();
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        write(folder, "key.pem", &key.serialize_pem())?;
        write(folder, "certificate.pem", &certificate.pem())?;
        write(folder, "authority.pem", &self.certificate)
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Writes a file that only its owner can read, and replaces none.
fn write(folder: &Path, name: &str, text: &str) -> Result<(), AuthorityError> {
    let path = folder.join(name);
    let written = fs::create_dir_all(folder).and_then(|()| {
        let mut options = fs::File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&path)?.write_all(text.as_bytes())
    });
    written.map_err(|source| AuthorityError::File { path, source })
}
