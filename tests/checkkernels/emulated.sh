# Kernels whose instructions this machine lacks, on an emulated processor: `sh tests/checkkernels/emulated.sh avx512vnni | avxvnni | amx`.
# Bochs (3.0 or later, built with --enable-avx --enable-evex and the display library nogui) boots Linux from a CD that holds busybox
# and checkkernels, whose TAP comes out of its serial port. A quarter of an hour; not part of the tests.
#   BOCHS, KERNEL        the programs: bochs; a vmlinuz (6.12 works, 6.1 hangs), e.g. unpacked from a linux-image-*-cloud-amd64 package
#   BIOS, VGABIOS        their images (Debian: bochsbios, vgabios)
#   BUSYBOX, ISOLINUX    a static busybox; the folder of isolinux.bin and ldlinux.c32 (Debian: busybox-static, isolinux, syslinux-common)
# and xorriso, cpio, gzip. SC_BUILD: where checkkernels was built (build).
#
# For amx, Bochs 3.0 has to be built with --enable-amx as well, and these things in its folder cpu be added or mended:
#   XFD                  without it Linux gives a process no tiles: cpuid.cc (leaf 0xD, subleaf 1: eax bit 4; subleaf 18: ecx bit 2), msr.cc
#                        (0x1C4 and 0x1C5), and tile instructions that meet bit 18 of the first set it in the second and raise #NM
#   avx/amx.cc           TDPBSSD takes its signed bytes for unsigned ones
#   xsave.cc             of tiles 8 of 16 rows are kept; a saved configuration has rows and bytes exchanged; "in use" is the wrong way round
#   icache.h             handleSMC overlooks changed code while AMX is on, whose bit 7 moves it to another line of the hash: go over all lines
set -eu
level=${1:?which level}
options=clearcpuid=xsaves
case $level in
avx512vnni) model=tigerlake ;;
avxvnni) model=arrow_lake ;;
amx) model=sapphire_rapids options= ;; # no XFD without XSAVES
*) echo "no emulated processor with $level: avx512vnni, avxvnni and amx are known" >&2; exit 2 ;;
esac
program=${SC_BUILD:-build}/tests/checkkernels/checkkernels
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

mkdir -p "$out/root/bin" "$out/root/dev" "$out/root/proc" "$out/cd/isolinux"
cp "${BUSYBOX:-/bin/busybox}" "$out/root/bin/busybox"
cp "$program" "$out/root/bin/checkkernels"
for file in $(ldd "$program" | grep -o '/[^ ]*'); do
    mkdir -p "$out/root$(dirname "$file")"
    cp -L "$file" "$out/root$file"
done
cat >"$out/root/init" <<END
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs d /dev
/bin/busybox mount -t proc p /proc
/bin/checkkernels --isa $level >/dev/ttyS0 2>&1
echo "# exit status \$?" >/dev/ttyS0
/bin/busybox sleep 1
/bin/busybox poweroff -f
END
chmod +x "$out/root/init"
(cd "$out/root" && find . | cpio -o -H newc 2>/dev/null | gzip -1) >"$out/cd/isolinux/initrd.gz"
cp "${KERNEL:?a vmlinuz}" "$out/cd/isolinux/vmlinuz"
for file in isolinux.bin ldlinux.c32; do
    cp "$(find "${ISOLINUX:-/usr/lib}" -name $file | head -n 1)" "$out/cd/isolinux/"
done
echo "DEFAULT vmlinuz initrd=initrd.gz console=ttyS0 quiet mitigations=off nokaslr no5lvl lsm=yama idle=poll $options" >"$out/cd/isolinux/isolinux.cfg"
xorriso -as mkisofs -quiet -o "$out/cd.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table "$out/cd" 2>"$out/xorriso.log"

cat >"$out/bochsrc" <<END
cpu: model=$model, count=1, ips=100000000, reset_on_triple_fault=0
memory: guest=1024, host=1024
romimage: file=${BIOS:-/usr/share/bochs/BIOS-bochs-latest}
vgaromimage: file=${VGABIOS:-/usr/share/vgabios/vgabios.bin}
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$out/cd.iso, status=inserted
boot: cdrom
display_library: nogui
com1: enabled=1, mode=file, dev=$out/tap
clock: sync=none
log: $out/log
panic: action=report
error: action=ignore
info: action=ignore
END
"${BOCHS:-bochs}" -q -f "$out/bochsrc" >"$out/bochs.out" 2>&1 || true
tr -d '\r' <"$out/tap" | grep -E '^(ok|not ok|1\.\.|#|Bail out)' || { tail -n 5 "$out/log" "$out/bochs.out" >&2; exit 1; }
tr -d '\r' <"$out/tap" | grep -q '^# exit status 0$'
