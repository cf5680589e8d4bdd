#!/bin/sh
# Print the two folders that sounding stamps are made of, as options of `avsbg data sounding-stamps`. Where the Debian
# packages are not installed, they are downloaded into DIR and unpacked there, which needs no rights. Status 3: neither.
set -eu
directory=${1:?usage: stamps_media.sh DIR}
packages="tuxpaint-stamps-default mate-backgrounds lomiri-wallpapers-16.04"

root=
# A file or folder of each package tells whether it is installed.
installed=yes
for part in tuxpaint/stamps/animals backgrounds/mate backgrounds/Bridge_by_Sander_Klootwijk.jpg; do
    [ -e "/usr/share/$part" ] || installed=no
done
if [ "$installed" = no ]; then
    root=$directory
    if [ ! -e "$directory/complete" ]; then
        if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
            echo "sounding stamps need the Debian packages $packages, and there is no apt-get here" >&2
            exit 3
        fi
        echo "downloading $packages" >&2
        rm -rf "$directory" && mkdir -p "$directory"
        if ! (cd "$directory" && apt-get download $packages >&2); then
            echo "apt-get cannot download $packages; install them, or run apt-get update first" >&2
            exit 3
        fi
        for archive in "$directory"/*.deb; do dpkg-deb -x "$archive" "$directory"; done
        rm -f "$directory"/*.deb
        touch "$directory/complete"
    fi
fi
echo "--stamps $root/usr/share/tuxpaint/stamps --backgrounds $root/usr/share/backgrounds"
