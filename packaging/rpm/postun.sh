# %systemd_postun: no restart.
systemctl daemon-reload >/dev/null 2>&1 || :
