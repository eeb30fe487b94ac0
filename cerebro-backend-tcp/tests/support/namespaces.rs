//! Two hosts on this machine: network namespaces with a wire between them, which can be cut.

use std::fmt::Display;
use std::net::Ipv4Addr;
use std::process::{Command, Output};

/// The one end of the wire, in both hosts.
const PORT: &str = "wire";

/// Two hosts and a wire; they are gone when this is dropped.
#[derive(Debug)]
pub struct Hosts([String; 2]);

impl Hosts {
    /// Only root can make hosts, and only with the program `ip`; the error says what is missing.
    pub fn new() -> Result<Self, String> {
        let name = |end: &str| format!("cerebro-{}-{end}", std::process::id());
        let hosts = Self([name("a"), name("b")]);
        let [a, b] = &hosts.0;
        ip(&["netns", "add", a])?;
        ip(&["netns", "add", b])?;
        ip(&["-n", a, "link", "add", PORT, "type", "veth", "peer", "name", PORT, "netns", b])?;
        for (host, name) in hosts.0.iter().enumerate() {
            let address = format!("{}/24", Self::address(host));
            ip(&["-n", name, "address", "add", &address, "dev", PORT])?;
            for port in ["lo", PORT] {
                ip(&["-n", name, "link", "set", port, "up"])?;
            }
        }
        Ok(hosts)
    }

    /// The address of host 0 or 1.
    pub fn address(host: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 211, 77, 1 + host as u8)
    }

    /// A command that runs `program` on host 0 or 1.
    pub fn on(&self, host: usize, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0[host]]).arg(program);
        command
    }

    /// Nothing gets through from here on.
    pub fn cut(&self) {
        self.set("down");
    }

    /// Everything gets through again.
    pub fn heal(&self) {
        self.set("up");
    }

    fn set(&self, to: &str) {
        ip(&["-n", &self.0[0], "link", "set", PORT, to]).expect("the wire is there");
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.0 {
            // It may never have been made.
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let failed = |why: &dyn Display| format!("`ip {}`: {why}", arguments.join(" "));
    let Output { status, stderr, .. } =
        Command::new("ip").args(arguments).output().map_err(|error| failed(&error))?;
    if status.success() { Ok(()) } else { Err(failed(&String::from_utf8_lossy(&stderr).trim())) }
}
