"""The style of the page."""

from __future__ import annotations

CSS = """
:root { --quiet: #57606a; --line: #d8dee4; --card: #ffffff; --back: #f6f8fa; }
body.body--dark { --quiet: #9da7b3; --line: #30363d; --card: #161b22; --back: #0d1117; }
body, body.body--dark { background: var(--back); }
.nicegui-content { padding: 0; align-items: center; }
.top-bar { background: var(--card); color: inherit; border-bottom: 1px solid var(--line);
  box-shadow: none; padding: 6px 16px; gap: 12px; align-items: center; flex-wrap: nowrap; }
body:not(.body--dark) .top-bar { color: #1f2328; }
.brand { font-weight: 600; }
.path { font-family: ui-monospace, monospace; color: var(--quiet); flex: 1; min-width: 0;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.state { font-size: 12px; padding: 1px 8px; border-radius: 9px; color: #fff; background: #6e7781; }
.state.live { background: #1a7f37; }
.page { width: 100%; max-width: 1240px; padding: 8px 16px 40px; gap: 8px; }
.problem { width: 100%; padding: 8px 12px; border-radius: 6px; border: 1px solid #bc4c00;
  overflow-wrap: anywhere; }
.tabs { width: 100%; }
.panels { width: 100%; background: transparent; }
.panels .q-tab-panel { padding: 8px 0; gap: 12px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(120px, 1fr));
  gap: 8px; width: 100%; }
.tile, .box { background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.tile { padding: 8px 12px; min-width: 0; }
.tile .name, .quiet { color: var(--quiet); font-size: 12px; }
.tile .value { font-size: 20px; line-height: 1.3; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr));
  gap: 12px; width: 100%; }
.box { padding: 10px 12px; min-width: 0; gap: 4px; }
.box .title { font-weight: 600; }
.chart { width: 100%; height: 210px; }
.filters { width: 100%; gap: 8px 12px; align-items: end; }
.filters .q-field { width: 132px; }
.transitions { width: 100%; background: var(--card); }
.transitions tbody tr { cursor: pointer; }
.transitions td { font-variant-numeric: tabular-nums; }
.transitions .brief { display: inline-block; max-width: 320px; overflow: hidden;
  text-overflow: ellipsis; vertical-align: middle; }
.transitions tr.chosen { outline: 2px solid #3b82f6; outline-offset: -2px; }
.thumb { display: inline-block; height: 44px; max-width: none; margin-right: 6px;
  image-rendering: pixelated; vertical-align: middle; border-radius: 3px; }
.detail { background: var(--card); width: 860px; max-width: 100%; gap: 8px; padding: 12px 16px; }
.detail .field { width: 100%; border-top: 1px solid var(--line); padding-top: 6px; gap: 2px; }
.detail .field.part { padding-left: 14px; }
.field .name { font-family: ui-monospace, monospace; font-weight: 600; overflow-wrap: anywhere; }
.numbers { font-family: ui-monospace, monospace; overflow-wrap: anywhere; font-size: 13px; }
.words { white-space: pre-wrap; overflow-wrap: anywhere; width: 100%; }
.frames { width: 100%; display: flex; flex-wrap: wrap; gap: 4px; }
.frames img { width: 132px; max-width: 31%; image-rendering: pixelated; border-radius: 3px;
  background: #000; }
.facts { width: 100%; border-collapse: collapse; font-size: 13px; }
.facts-place { width: 100%; overflow-x: auto; }
.facts td, .facts th { text-align: left; padding: 3px 12px 3px 0; vertical-align: top;
  white-space: nowrap; border-top: 1px solid var(--line); font-weight: normal; }
.facts td > * { max-width: 300px; overflow: hidden; text-overflow: ellipsis; }
.facts td:last-child, .facts td:last-child > * { white-space: normal; overflow-wrap: anywhere;
  min-width: 160px; max-width: none; max-height: 8em; overflow-y: auto; }
.facts th { color: var(--quiet); border-top: none; }
@media (max-width: 600px) {
  .page { padding: 8px 8px 32px; }
  .tiles { grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); }
  .tile .value { font-size: 16px; }
  .filters .q-field { width: calc(50% - 6px); }
  .transitions .brief { max-width: 150px; }
  .q-dialog__inner--minimized { padding: 8px; }
  .q-dialog__inner--minimized > .detail { max-height: calc(100vh - 16px); padding: 10px 12px; }
}
"""
