# The user before the files; what %sysusers_create_package does, and for hosts whose systemd lacks it.
getent group keepd >/dev/null || groupadd -r keepd || :
getent passwd keepd >/dev/null ||
    useradd -r -g keepd -d /var/lib/keepd -s /sbin/nologin -c "keepd manager" keepd || :
