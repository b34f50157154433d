#!/bin/sh
# Builds the Debian package: build.sh BINARY VERSION DIR. BINARY is the server, linked statically; the package is
# DIR/tote_VERSION_ARCHITECTURE.deb, the same to the bit for the same input.
set -eu
binary=$1 version=$2 out=$3
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
architecture=${ARCHITECTURE:-$(dpkg --print-architecture)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$source" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
umask 022

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"
install -D -m 755 "$binary" "$tree/usr/bin/tote-server"
install -D -m 644 "$here/server.toml" "$tree/etc/tote/server.toml"
install -d "$tree/usr/lib/systemd/system"
"$binary" tune unit --write "$tree/usr/lib/systemd/system" --binary /usr/bin/tote-server --config-file /etc/tote/server.toml
for file in README.md DESIGN.md proto/asyncapi.yaml; do
	install -D -m 644 "$source/$file" "$tree/usr/share/doc/tote/$(basename "$file")"
done
install -m 644 "$source/LICENSE" "$tree/usr/share/doc/tote/copyright"
gzip -9n <"$source/CHANGELOG.md" >"$tree/usr/share/doc/tote/changelog.gz"

install -d "$tree/DEBIAN"
for script in postinst prerm postrm; do
	install -m 755 "$here/$script" "$tree/DEBIAN/$script"
done
echo /etc/tote/server.toml >"$tree/DEBIAN/conffiles"
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@SIZE@/$(du -sk "$tree/usr" | cut -f1)/" \
	"$here/control" >"$tree/DEBIAN/control"
(cd "$tree" && find usr -type f | LC_ALL=C sort | xargs md5sum) >"$tree/DEBIAN/md5sums"
find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zzstd --build "$tree" "$out/tote_${version}_$architecture.deb"
