/**
 * The page of an HTML trace: what it looks like and what it does. The data is there as CPUS, ROWS,
 * `names` and `spaces` when the script runs; a row is CPU, start and length in nanoseconds, kind (0
 * task, 1 kernel thread, 2 idle, 3 missed), name, PID, TGID, CR3, missed switches, whether the
 * begin is exact.
 */
export const PAGE_STYLE = `
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b2430;--dim:#68758a;--edge:#dde2ea;
--lane:#eef1f5;--idle:#e3e8ef;--accent:#2563eb;--bad:#d97706}
@media(prefers-color-scheme:dark){:root{--bg:#0f141b;--card:#171e28;--ink:#e6ebf2;--dim:#8d9bb0;
--edge:#263040;--lane:#121923;--idle:#1f2937;--accent:#60a5fa;--bad:#f59e0b}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);
display:flex;flex-direction:column;min-height:100vh;
font:14px/1.45 system-ui,-apple-system,"Segoe UI",sans-serif}
header{display:flex;flex-wrap:wrap;align-items:baseline;gap:4px 20px;padding:18px 24px 12px}
h1{margin:0;font-size:17px;font-weight:650}header p{margin:0;color:var(--dim);flex:1 1 180px}
input{width:260px;padding:7px 12px;border:1px solid var(--edge);border-radius:8px;
background:var(--card);color:var(--ink);font:inherit}input:focus{outline:2px solid var(--accent)}
#hits{color:var(--dim);min-width:90px;font-variant-numeric:tabular-nums}
#hits:empty{display:none}
main,section{margin:0 24px 18px;background:var(--card);border:1px solid var(--edge);
border-radius:12px;overflow:hidden;position:relative}
canvas{display:block;width:100%;cursor:grab;touch-action:none}canvas:active{cursor:grabbing}
canvas:focus-visible{outline:2px solid var(--accent);outline-offset:-2px}
.keys{margin:0;padding:7px 14px;color:var(--dim);font-size:12px;border-top:1px solid var(--edge)}
#tip{position:absolute;pointer-events:none;padding:9px 12px;border-radius:8px;font-size:12.5px;
background:var(--ink);color:var(--bg);box-shadow:0 6px 20px #0004;white-space:pre;z-index:2;
font-variant-numeric:tabular-nums}
main{flex:none}section{flex:1 1 0;min-height:280px;overflow:auto}table{border-collapse:collapse;width:100%;
font-variant-numeric:tabular-nums}th,td{text-align:right;padding:5px 14px;white-space:nowrap}
th{position:sticky;top:0;background:var(--card);color:var(--dim);font-weight:550;font-size:12px;
border-bottom:1px solid var(--edge)}th:nth-child(2),td:nth-child(2){text-align:left}
td:nth-child(2){font-weight:550}td:last-child{font-family:ui-monospace,monospace;font-size:12.5px}
tbody tr{cursor:pointer}tbody tr:hover{background:var(--lane)}.bar{width:26%}
td.bar i{display:block;height:9px;border-radius:5px;min-width:2px}.dim{color:var(--dim)}
@media(max-width:760px){header{padding:14px 12px 10px}main,section{margin:0 12px 12px}
th,td{padding:5px 8px}.bar{display:none}header p{flex-basis:100%}input{flex:1 1 200px}}
@media(max-width:520px){th:nth-child(3),td:nth-child(3){display:none}}
`;

export const PAGE_SCRIPT = String.raw`
const $=id=>document.getElementById(id),canvas=$('line'),pen=canvas.getContext('2d'),tip=$('tip');
const lanes=CPUS.map(cpu=>ROWS.filter(r=>r[0]===cpu).sort((a,b)=>a[1]-b[1]));
const first=0,last=Math.max(1,...lanes.flatMap(l=>l.slice(-1).map(r=>r[1]+r[2])));
const LEFT=64,TOP=30,LANE=46,GAP=10,FOOT=10;
let from=first,span=last-first,found=new Set(),hit=-1,order=[],width=800;
const css=name=>getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const dark=()=>matchMedia('(prefers-color-scheme:dark)').matches;
// One hue a name: what runs the same program looks alike, and its processes differ a little.
const hues=names.map(name=>{
  let sum=7;for(const letter of name)sum=(sum*31+letter.codePointAt(0))%9973;
  return sum*137.508%360});
function colour(row){
  if(row[3]===2)return css('--idle');
  const light=(dark()?50:60)+(row[6]*7)%9-4;
  return'hsl('+hues[row[4]]+' '+(row[3]===1?'20%':'56%')+' '+light+'%)';
}
function time(ns){
  const a=Math.abs(ns);
  if(a>=1e9)return(ns/1e9).toFixed(3)+' s';
  if(a>=1e6)return(ns/1e6).toFixed(2)+' ms';
  return(ns/1e3).toFixed(1)+' µs';
}
const x=ns=>LEFT+(ns-from)/span*(width-LEFT);
const at=px=>from+(px-LEFT)/(width-LEFT)*span;
function firstSeen(lane){
  let low=0,high=lane.length;
  while(low<high){const mid=(low+high)>>1;if(lane[mid][1]+lane[mid][2]<from)low=mid+1;else high=mid}
  return low;
}
function drawRuler(){
  // Steps of 1, 2 or 5, so far apart that no two labels meet.
  const least=span/(width-LEFT)*92,power=Math.pow(10,Math.floor(Math.log10(least)));
  const step=power*(least/power>5?10:least/power>2?5:least/power>1?2:1);
  const [scale,unit]=from+span>=1e9?[1e9,' s']:from+span>=1e6?[1e6,' ms']:[1e3,' µs'];
  const digits=Math.max(0,-Math.floor(Math.log10(step/scale)+1e-9));
  pen.fillStyle=css('--dim');pen.textAlign='left';pen.font='11px system-ui,sans-serif';
  for(let t=Math.ceil(from/step)*step;t<from+span;t+=step){
    pen.fillRect(Math.round(x(t)),TOP-6,1,5);
    const label=(t/scale).toFixed(digits)+unit;
    if(x(t)+4+pen.measureText(label).width<width)pen.fillText(label,x(t)+4,TOP-10);
  }
}
function drawSlice(row,y,clear){
  const a=Math.max(x(row[1]),LEFT),w=Math.max(Math.min(x(row[1]+row[2]),width)-a,.6);
  const dim=found.size>0&&!found.has(row);
  pen.globalAlpha=dim?.18:1;
  if(row[3]===3){
    pen.fillStyle=css('--bad');pen.fillRect(a,y+LANE/2-2,w,4);
  }else{
    // A hair between neighbours, where both are wide enough to be two.
    pen.fillStyle=colour(row);
    pen.fillRect(a,y+(row[3]===2?LANE-9:2),w>5?w-1:w,row[3]===2?7:LANE-4);
    if(w>34&&row[3]!==2&&clear){
      pen.save();pen.beginPath();pen.rect(a+4,y,w-8,LANE);pen.clip();
      pen.fillStyle='#fff';pen.textAlign='left';
      pen.font='600 12px system-ui,sans-serif';pen.fillText(names[row[4]],a+6,y+20);
      pen.font='11px system-ui,sans-serif';pen.fillText(row[5]+'  '+time(row[2]),a+6,y+35);pen.restore();
    }
  }
  pen.globalAlpha=1;
}
function drawLane(lane,index){
  const y=TOP+index*(LANE+GAP);
  pen.fillStyle=css('--lane');pen.fillRect(LEFT,y,width-LEFT,LANE);
  pen.fillStyle=css('--ink');pen.font='600 12px system-ui,sans-serif';pen.textAlign='right';
  pen.fillText('CPU '+CPUS[index],LEFT-10,y+LANE/2+4);
  let edge=-1;
  for(let i=firstSeen(lane);i<lane.length&&lane[i][1]<from+span;i++){
    const row=lane[i],end=x(row[1]+row[2]);
    if(end<edge+.4&&!found.has(row))continue;
    drawSlice(row,y,true);edge=end;
  }
}
function draw(){
  const ratio=devicePixelRatio||1,height=TOP+CPUS.length*(LANE+GAP)+FOOT;
  width=canvas.clientWidth;canvas.width=width*ratio;canvas.height=height*ratio;
  canvas.style.height=height+'px';pen.setTransform(ratio,0,0,ratio,0,0);
  pen.clearRect(0,0,width,height);drawRuler();lanes.forEach(drawLane);
  if(hit>=0)drawHit(order[hit]);
}
function drawHit(row){
  const y=TOP+CPUS.indexOf(row[0])*(LANE+GAP),a=Math.max(x(row[1]),LEFT);
  pen.strokeStyle=css('--accent');pen.lineWidth=2;
  pen.strokeRect(a-1,y,Math.max(x(row[1]+row[2])-a,2)+2,LANE);
}
function clamp(){
  span=Math.min(Math.max(span,200),last-first);from=Math.min(Math.max(from,first),last-span);draw();
}
function zoom(factor,px){const t=at(px);span=Math.min(span*factor,last-first);
  from=t-(px-LEFT)/(width-LEFT)*span;clamp()}
function rowAt(px,py){
  const lane=lanes[Math.floor((py-TOP)/(LANE+GAP))],t=at(px);
  if(!lane||px<LEFT)return;
  return lane[firstFrom(lane,t)];
}
function firstFrom(lane,t){
  let low=0,high=lane.length-1;
  while(low<high){const mid=(low+high+1)>>1;if(lane[mid][1]<=t)low=mid;else high=mid-1}
  return low;
}
function describe(row){
  const when=(row[1]/1e9).toFixed(6)+' s, for '+time(row[2]);
  if(row[3]===3)return row[8]+' switches that nobody saw\n'+when;
  const who=row[3]===2?'idle':names[row[4]]+'\nPID '+row[5]+(row[6]===row[5]?'':'   process '+row[6]);
  return who+'\nCR3 '+spaces[row[7]]+'\n'+when+(row[9]||row[3]===2?'':'\nbegin known to a look only');
}
function look(event){
  const box=canvas.getBoundingClientRect(),px=event.clientX-box.left,py=event.clientY-box.top;
  const row=rowAt(px,py);
  tip.hidden=!row||row[1]+row[2]<at(px);
  if(tip.hidden)return;
  tip.textContent=describe(row);
  tip.style.left=Math.min(px+14,width-tip.offsetWidth-8)+'px';tip.style.top=py+16+'px';
}
function search(text){
  const want=text.trim().toLowerCase();found=new Set();order=[];hit=-1;
  if(want!==''){
    const cr3=want.startsWith('0x');
    const fits=r=>r[3]!==3&&(cr3?spaces[r[7]]===want:/^\d+$/.test(want)
      ?r[5]===+want||r[6]===+want:names[r[4]].toLowerCase().includes(want));
    order=ROWS.filter(fits).sort((a,b)=>a[1]-b[1]);found=new Set(order);
  }
  $('hits').textContent=want===''?'':order.length+(order.length===1?' slice':' slices');
  draw();
}
function next(){
  if(order.length===0)return;
  hit=(hit+1)%order.length;const row=order[hit];
  if(span>row[2]*400)span=Math.max(row[2]*60,20000);
  from=row[1]+row[2]/2-span/2;$('hits').textContent=hit+1+' of '+order.length;clamp();
}
function shares(){
  const by=new Map();
  for(const r of ROWS){
    if(r[3]===3)continue;
    const key=r[3]===2?'idle':r[6]+' '+names[r[4]];
    const one=by.get(key)||{pid:r[3]===2?0:r[6],name:names[r[4]],n:0,t:0,cr3:spaces[r[7]],row:r};
    one.n++;one.t+=r[2];by.set(key,one);
  }
  return[...by.values()].sort((a,b)=>b.t-a.t);
}
function showShares(){
  const all=(last-first)*CPUS.length;
  for(const one of shares().slice(0,500)){
    const tr=document.createElement('tr'),add=text=>{const td=document.createElement('td');
      td.textContent=text;tr.append(td);return td};
    add(one.pid);add(one.name);add(one.n);add(time(one.t));add((one.t/all*100).toFixed(2)+' %');
    const bar=document.createElement('i');bar.style.width=one.t/all*100+'%';
    bar.style.background=colour(one.row);const td=add('');td.className='bar';td.append(bar);
    // A kernel thread and an idle CPU run on what the task before them left.
    if(one.row[3]===0)add(one.cr3);else add('borrowed').className='dim';
    tr.onclick=()=>{$('search').value=one.pid===0?one.name:one.pid;search($('search').value);next()};
    $('share').append(tr);
  }
}
let drag;
canvas.onpointerdown=e=>{drag=[e.clientX,from];canvas.setPointerCapture(e.pointerId)};
canvas.onpointerup=()=>{drag=undefined};
canvas.onpointermove=e=>{
  if(drag){from=drag[1]-(e.clientX-drag[0])/(width-LEFT)*span;tip.hidden=true;clamp()}else look(e)};
canvas.onpointerleave=()=>{tip.hidden=true};
canvas.ondblclick=()=>{from=first;span=last-first;clamp()};
canvas.addEventListener('wheel',e=>{e.preventDefault();
  if(e.shiftKey||Math.abs(e.deltaX)>Math.abs(e.deltaY)){from+=(e.deltaX||e.deltaY)/800*span;clamp()}
  else zoom(Math.exp(e.deltaY/400),e.clientX-canvas.getBoundingClientRect().left)},{passive:false});
$('search').oninput=e=>search(e.target.value);
$('search').onkeydown=e=>{if(e.key==='Enter')next();if(e.key==='Escape'){e.target.value='';search('')}};
document.onkeydown=e=>{
  if(e.target===$('search'))return;
  const keys={'+':()=>zoom(.6,width/2),'=':()=>zoom(.6,width/2),'-':()=>zoom(1.7,width/2),
    ArrowLeft:()=>{from-=span/8;clamp()},ArrowRight:()=>{from+=span/8;clamp()},Enter:next,
    Home:()=>{from=first;clamp()},End:()=>{from=last;clamp()},'/':()=>$('search').focus()};
  if(keys[e.key]&&!e.ctrlKey&&!e.metaKey){e.preventDefault();keys[e.key]()}
};
const missed=ROWS.reduce((sum,r)=>sum+r[8],0);
$('facts').textContent=time(last-first)+' on '+CPUS.length+(CPUS.length===1?' CPU, ':' CPUs, ')
  +ROWS.filter(r=>r[3]!==3).length+' slices seen, '+missed+' switches missed';
onresize=draw;matchMedia('(prefers-color-scheme:dark)').onchange=draw;showShares();draw();
`;
