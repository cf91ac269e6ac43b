//! backstay: a gRPC control plane for HAProxy.

fn main() -> anyhow::Result<()> {
    use backstay::auth::{Password, User};
    use backstay::process::strategy::{How, Presence};
    let args: Vec<String> = std::env::args().collect();
    let dir = std::path::PathBuf::from(&args[1]);
    let delay = std::time::Duration::from_millis(3_600_000);
    let setup = backstay::cli::serve::Setup {
        listen: format!("{}:{}", args[2], args[3]).parse()?,
        store: {
            let mut s = backstay::configuration::StoreSettings::new(dir.join("haproxy.cfg"), dir.join("tr"));
            s.durable_transactions = false;
            s
        },
        haproxy_bin: dir.join("stub-haproxy"),
        reload_delay: delay,
        how: How::Command(vec!["true".into()]),
        presence: Presence::default(),
        users: vec![User { name: "admin".into(), password: Password::plain("pw", |_| None)? }],
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(backstay::cli::serve::run(setup, tokio_util::sync::CancellationToken::new()))?;
    Ok(())
}
