# %systemd_preun: an erasure, not an upgrade, stops keepd and its services.
if [ "$1" -eq 0 ]; then
    if [ -x /usr/lib/systemd/systemd-update-helper ]; then
        /usr/lib/systemd/systemd-update-helper remove-system-units keepd.service || :
    else
        systemctl --no-reload disable --now keepd.service >/dev/null 2>&1 || :
    fi
fi
