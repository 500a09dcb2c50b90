# /etc/cron.d/php@PHPVERSION@: crontab fragment for PHP
#  This purges session files in session.save_path older than X.

# Look for and purge old sessions every 30 minutes
09,39 *     * * *     root   [ -x /usr/lib/php/sessionclean ] && if [ ! -d /run/systemd/system ]; then /usr/lib/php/sessionclean; fi
30 3 * * 0 root test -e /run/systemd/system || SERVICE_MODE=1 /usr/lib/x86_64-linux-gnu/e2fsprogs/e2scrub_all_cron
@reboot www-data	/usr/local/bin/warm-cache
5-55/10 * * * * munin	if [ -x /usr/bin/munin-cron ]; then /usr/bin/munin-cron; fi
