// The same package from CommonJS: require() on Node that can require ESM (20.19, 22.12 and later),
// import() everywhere.
//
//   node examples/commonjs.cjs qemu:4242
const { attach, hex } = require('node-libvmi');

async function main(target) {
  const { commandLine } = await import('node-libvmi/helpers');
  const guest = await attach(target);
  try {
    const { pid, comm, cr3 } = guest.task(1);
    console.log(pid, comm, hex(cr3));
    console.log(commandLine(guest.objects));
  } finally {
    await guest.close();
  }
}

const target = process.argv[2];
if (target === undefined) {
  console.error('usage: node examples/commonjs.cjs TARGET');
  process.exit(2);
}
main(target);
