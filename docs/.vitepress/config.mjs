import { readdirSync, readFileSync } from 'node:fs';
import { defineConfig } from 'vitepress';

const folder = new URL('..', import.meta.url);
/** Pages of a folder by their own headings. */
const pagesIn = (name) =>
  readdirSync(new URL(name, folder))
    .filter((file) => file.endsWith('.md') && file !== 'index.md')
    .sort()
    .map((file) => ({
      text: /^# (.*)$/m.exec(readFileSync(new URL(name + file, folder), 'utf8'))?.[1] ?? file,
      link: `/${name}${file.replace(/\.md$/, '')}`,
    }));
const page = (text, link) => ({ text, link });

export default defineConfig({
  title: 'node-libvmi',
  description: 'PID to CR3 and back, from outside a running Linux virtual machine',
  // Links out of this folder are the checkout's own.
  ignoreDeadLinks: [/^(\.\/)?\.\.\//],
  markdown: { languageAlias: { repl: 'js', console: 'sh' } },
  themeConfig: {
    search: { provider: 'local' },
    outline: [2, 3],
    nav: [
      page('Start', '/first-five-minutes'),
      page('How to', '/how-to/'),
      page('Reference', '/reference/'),
    ],
    sidebar: [
      {
        text: 'Start',
        items: [
          page('Install', '/install'),
          page('The first five minutes', '/first-five-minutes'),
          page('Tutorial', '/tutorial'),
          page('What CR3 is', '/what-cr3-is'),
          page('Exploring a running kernel', '/exploring'),
          page('Troubleshooting', '/troubleshooting'),
        ],
      },
      { text: 'How to', collapsed: true, items: pagesIn('how-to/') },
      {
        text: 'More',
        items: [
          page('Who runs where', '/who-runs'),
          page('CR3 logs', '/cr3-log'),
          page('Embedding', '/embedding'),
          page('gdb', '/gdb'),
          page('Volatility and others', '/volatility'),
          page('libvmi', '/libvmi'),
          page('Coming from another tool', '/coming-from'),
        ],
      },
      { text: 'Reference', items: [page('Exports', '/reference/'), ...pagesIn('reference/')] },
      {
        text: 'What works where',
        items: [
          page('Support', '/support'),
          page('Where memory is', '/sources'),
          page('Layouts', '/layouts'),
          page('Kernels', '/kernels'),
          page('The matrix', '/matrix'),
          page('Xen', '/xen'),
          page("Xen's runs", '/xen-runs'),
          page("Xen's events", '/xen-events'),
        ],
      },
    ],
  },
});
