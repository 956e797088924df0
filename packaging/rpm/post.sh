systemd-tmpfiles --create keepd.conf >/dev/null 2>&1 || :
# %systemd_post: enabled where the host's presets say so; not started.
if [ "$1" -eq 1 ]; then
    if [ -x /usr/lib/systemd/systemd-update-helper ]; then
        /usr/lib/systemd/systemd-update-helper install-system-units keepd.service || :
    else
        systemctl --no-reload preset keepd.service >/dev/null 2>&1 || :
    fi
elif [ -e /run/keepd/api.sock ]; then
    # No service notices. An older keepd does not know how.
    keepctl --socket /run/keepd/api.sock upgrade ||
        echo "keepd: the keepd that was running goes on with its services; \`systemctl restart keepd\` stops them and starts the new one"
fi
